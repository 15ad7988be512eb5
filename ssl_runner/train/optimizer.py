"""Adam without the compiler that PyTorch's optimizers load."""

import inspect

import torch


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, the same function and the same state.

    PyTorch excludes an optimizer's methods from compilation, and loads the compiler to do so, which
    takes a second or two in every training process. Here the methods are unwrapped: we compile only
    the model, never an optimizer.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
