"""Inside the units and along time: what gradients of parameters cannot show."""
