"""Training: demonstrations in, a policy folder with weights out. Needs the extra ``train``.

- ``alignment``: patches are taught to look like the words for what they show
- ``batches``: frames as what a model learns from and is measured on
- ``bounds``: bounds of actions and state that hold all of the data
- ``checkpoint``: a run's state in its folder
- ``config``: what there is to choose about a run
- ``data``: the frames of all sources in memory, and which a step sees
- ``logs``: a run's figures: screen, CSV file and TensorBoard
- ``lora``: LoRA on the model's linear layers
- ``losses``: one pass through the model, with its losses
- ``measurements``: what is measured on held-out frames
- ``object_words``: the words for what a segmentation shows
- ``optim``: AdamW and Muon with schedules
- ``parallel``: one process or several: DDP, FSDP2
- ``prompts``: all instructions of the data, encoded once
- ``run``: a training run, from data to a policy folder
- ``start``: what a run begins with: model, tokenizer, manifest
- ``tower_features``: features of towers that are not trained, computed once
- ``views``: what the model sees of frames: cropped, changed in colour, normalised
- ``weights``: means of weights, and the policy folder that they end in
- ``yaml_file``: a YAML file in which every key stands once
"""
