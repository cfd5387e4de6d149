"""What runs in another Python, with packages that cannot be installed beside ours; see `envs.third_party.hosted`.

The modules here run on Python 3.8 with NumPy alone, and import nothing of pixio-robot.
"""
