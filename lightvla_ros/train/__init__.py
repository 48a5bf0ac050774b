"""Trains a policy folder with weights from demonstrations. Needs the extra ``train``.

- ``alignment``: loss that makes patches similar to the words for the objects they show
- ``average``: weights between those of two policies
- ``batches``: batches of frames for training and evaluation
- ``bounds``: bounds of actions and state that include all of the data
- ``checkpoint``: a run's state in its folder
- ``config``: configuration of a run
- ``config_file``: a configuration from a YAML file
- ``data``: the frames of all sources in memory, and the choice of frames for each step
- ``dry_run``: what a run would be, without starting it
- ``estimate``: GPU memory of a run, from the model's shapes
- ``logs``: a run's figures: screen, CSV file and TensorBoard
- ``lora``: LoRA on the model's linear layers
- ``losses``: one pass through the model, with its losses
- ``measurements``: errors and kept tokens on held-out frames
- ``model_config``: the model's configuration, and shapes and types of its initial weights
- ``object_words``: the words for the objects in a segmentation
- ``optim``: AdamW and Muon with schedules
- ``parallel``: one process or several: DDP, FSDP2
- ``preparation``: a model made ready: what is trained, blocks recomputed or compiled
- ``prompts``: all instructions of the data, encoded once
- ``recolour``: other colours of things, painted into recorded pictures
- ``run``: a training run, from data to a policy folder
- ``start``: model, tokenizer and manifest at the start of a run
- ``token_teacher``: towers that learn other looks from themselves
- ``tower_features``: features of towers that are not trained, computed once
- ``views``: frames as model inputs: cropped, changed in colour, normalised
- ``weights``: means of weights, and the policy folder that is written from them
"""
