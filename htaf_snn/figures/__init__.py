"""The paper's figures about HTAF as a function, and about the gradients it passes on."""
