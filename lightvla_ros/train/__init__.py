"""Training: demonstrations in, a policy folder with weights out. Needs the extra ``train``."""
