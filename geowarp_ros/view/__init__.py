"""The local web page of a gallery, a drive or a running node: on this machine, only to look at."""
