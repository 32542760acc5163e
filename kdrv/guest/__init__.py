"""The guest side: the agent (C), the initramfs it starts from, and how Python talks to it."""
