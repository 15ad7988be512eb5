"""Adam without the compiler that PyTorch's optimizers load."""

import inspect

import torch


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, the same function and the same state.

    PyTorch tells its compiler to keep its hands off an optimizer's methods, and loads it for that, a
    second or two in every process that trains. Here the methods are those inside: nothing of ours
    compiles an optimizer, only the model.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
