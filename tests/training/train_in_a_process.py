"""Run by test_resume.py in a process of its own, which is then killed: python train_in_a_process.py RUN_DIR"""

import sys
import time

import torch.utils.tensorboard
from lab import loop_config, regression

from pixio_robot.training.loop import fit

torch.set_num_threads(1)
print("training", flush=True)
fit(regression(at_step=lambda step: time.sleep(0.008)), loop_config(steps=500, save_every=5), sys.argv[1])
