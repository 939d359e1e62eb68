"""The only reader of configuration: typed sections, composing, checking, and the part that each stage may see."""
