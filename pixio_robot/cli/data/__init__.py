"""The actions of `pixio-robot data`."""
