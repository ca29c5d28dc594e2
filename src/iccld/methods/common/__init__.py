"""What methods share: the contract of a method, the parts one is made of, and pieces that several steps are written with."""
