"""What is trained and on what: architectures, their first weights, nets, tasks, data and how data are shared out.

Import from the submodules. Only `nets` and `measure` load torch.
"""
