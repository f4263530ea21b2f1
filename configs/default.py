"""Every field of a configuration, with its default.

A recipe starts from `get_config()` and changes what its paper states; any
field can be set on the command line: `--config.batch_size=64`,
`--config.dataset.name=synthetic_faces`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
  config = ConfigDict()

  config.model = ConfigDict()
  config.model.name = "resnet50"  # a name that fer_jax.models lists
  # The model's options: any that it declares (`fer-jax list models` shows
  # them), with its own defaults: config.model.stem = "small".

  config.dataset = ConfigDict()
  config.dataset.name = "fer2013"  # a name that fer_jax.data lists
  # Where the release's files lie; "" is the manual folder of
  # tensorflow-datasets, ~/tensorflow_datasets/downloads/manual.
  config.dataset.manual_dir = ""
  # Where the prepared array_record files go: a folder, or its URL on S3 or
  # Google Cloud Storage; "" is ~/tensorflow_datasets.
  config.dataset.data_dir = ""
  # Whether to compare the contents of all release files with those prepared,
  # and not only names, sizes, times and inodes.
  config.dataset.verify = False
  # The dataset's options, in the same way: config.dataset.num_classes = 8.

  # Options of every dataset, applied after it is prepared.
  # Only these classes, in this order: "happy,neutral,sad". "" is all. A name
  # that has a comma is in double quotes.
  config.dataset.classes = ""
  # Fractions of the training examples that become this split, stratified.
  config.dataset.holdout_validation = 0.0
  config.dataset.holdout_test = 0.0  # as holdout_validation
  config.dataset.holdout_seed = 0  # seed of the holdouts
  # Drop training images that are also in validation or test.
  config.dataset.drop_duplicates = False

  # in_memory: the whole split lies on the device, the host sends indices.
  # streaming: the host reads uint8 batches from array_record, for datasets
  # that do not fit. Both give the same batches.
  config.data_loader = "in_memory"

  # Initial weights of a new run: the workdir of another run (its best epoch), a
  # released model ("ferplus-small"), a folder that `fer-jax convert` wrote, or
  # published ImageNet weights, "timm:resnet50" or "torchvision:resnet50",
  # downloaded once. A head for other classes is reinitialized.
  # "": random initialization.
  config.init_from = ""
  config.freeze = ConfigDict()
  # What is not trained, comma-separated from the input on ("conv1,layer1"):
  # groups of layers, prefixes or globs of parameter paths, or "backbone" (all
  # but the head). BatchNorm statistics in there are fixed, too. "" is nothing.
  config.freeze.patterns = ""
  # Epochs after which one more of these is unfrozen, the last one first.
  config.freeze.unfreeze_epochs = ()

  config.input = ConfigDict()
  # The model's input; unset, the dataset's own (48 and 1 for FER2013).
  config.input.image_size = placeholder(int)  # pixels; images are resized to it
  config.input.channels = placeholder(int)  # 1, or 3 (gray repeated)
  config.input.normalization = "unit"  # unit (0..1) | mean_std (then mean, std)
  config.input.mean = (0.5077,)  # on 0..1; one number, or one per channel
  config.input.std = (0.2551,)  # these two: FER2013's training split

  # Augmentation of training images, on the device; 0 or False is off.
  config.augment = ConfigDict()
  config.augment.shift = 0.0  # up to this fraction of width and height
  config.augment.fill = "nearest"  # beyond the edges: nearest | zero
  config.augment.flip = False  # horizontally, with probability 0.5
  config.augment.rotation = 0.0  # up to this many degrees, either way
  config.augment.zoom = 0.0  # scale by 1 - zoom .. 1 + zoom
  config.augment.resized_crop = 0.0  # crop of area resized_crop .. 1, resized
  config.augment.crop_padding = 0  # pad by this many pixels, crop back
  config.augment.brightness = 0.0  # add up to this (on 0..1) either way
  config.augment.contrast = 0.0  # scale it by 1 - contrast .. 1 + contrast
  config.augment.blur = 0.0  # Gaussian blur of sigma 0 .. blur pixels
  config.augment.random_erasing = 0.0  # probability of one erased rectangle
  config.augment.mixup = 0.0  # alpha of mixup's Beta(alpha, alpha)
  config.augment.cutmix = 0.0  # alpha of cutmix's Beta(alpha, alpha)

  config.optimizer = ConfigDict()
  config.optimizer.name = "adam"  # adam | adamw | adafactor | sgd
  config.optimizer.learning_rate = 1e-3  # the schedule's highest value
  # Of kernels only; fer_jax/training/optim/optimizers.py defines it for each
  # optimizer.
  config.optimizer.weight_decay = 0.0
  config.optimizer.momentum = 0.9  # sgd
  config.optimizer.nesterov = False  # sgd
  config.optimizer.b1 = 0.9  # adam, adamw
  config.optimizer.b2 = 0.999  # adam, adamw
  config.optimizer.eps = 1e-8  # adam, adamw
  config.optimizer.clip_norm = 0.0  # clip the gradient's global norm; 0 is off
  config.optimizer.accumulate_steps = 1  # batches per update
  # Learning rate multipliers of layers, named as in freeze.patterns:
  # "layer1:0.1,fc:10". "" is 1 everywhere.
  config.optimizer.lr_multipliers = ""

  config.schedule = ConfigDict()
  config.schedule.name = "fixed"  # fixed | linear | cosine | step | plateau
  config.schedule.warmup_epochs = 0.0  # linear from 0; included in num_epochs
  config.schedule.end_factor = 0.0  # linear, cosine: last / highest rate
  # step: epochs after which the rate is multiplied by step_factor
  config.schedule.step_epochs = (30.0, 40.0)
  config.schedule.step_factor = 0.1  # step, plateau: the factor
  # plateau: epochs without an improvement of the validation loss
  config.schedule.plateau_patience = 5
  config.schedule.plateau_min_delta = 1e-4  # plateau: smallest improvement

  config.loss = ConfigDict()
  # cross_entropy | multi_target (any class of the target is right)
  config.loss.name = "cross_entropy"
  config.loss.output = "softmax"  # softmax | sigmoid (normalized to sum 1)
  config.loss.label_smoothing = 0.0  # weight of the uniform distribution
  # none | balanced (examples / (classes * examples of the class), in train).
  # Each image of a mixed pair brings the weight of its own class.
  config.loss.class_weights = "none"
  # Knowledge distillation: a released model or the workdir of a run, whose
  # probabilities of each training image become a part of its target; of
  # several, comma-separated, the mean. "": none.
  config.loss.teacher = ""
  config.loss.teacher_weight = 0.5  # that part

  config.batch_size = 32  # over all devices
  config.eval_batch_size = 256  # over all devices
  config.num_epochs = 50  # at most; see early_stopping
  # Evaluates and saves a checkpoint every this many epochs, and after the last.
  config.eval_every_epochs = 1
  config.seed = 0  # of initialization, data order, augmentation, dropout
  # Of activations; on a CPU, of the operands of products: float32 | bfloat16.
  config.dtype = "float32"
  # Decay of the moving averages of parameters and BatchNorm statistics, which
  # are evaluated instead; (1 + step) / (10 + step) if that is less. 0 is off.
  config.ema_decay = 0.0

  # Checks that a model can overfit a small subset: trains and validates on this
  # many training images, without regularization (training/overfit_check.py).
  # 0 is off.
  config.overfit = 0

  config.best_metric = "validation_loss"  # | validation_accuracy
  config.early_stopping = ConfigDict()
  # Epochs without an improvement of best_metric by min_delta; 0 is off.
  config.early_stopping.patience = 0
  config.early_stopping.min_delta = 0.0  # in the metric's unit

  config.checkpoint = ConfigDict()
  config.checkpoint.keep = 2  # latest checkpoints kept, besides the best
  config.checkpoint.every_steps = 0  # within epochs, too; 0 is off
  # For jobs of limited time: saves and ends this many minutes after the
  # command's start, with exit status 142; the same command resumes. A study, a
  # sweep or a cross-validation has one limit for all runs. 0 is no limit.
  config.max_minutes = 0.0

  # Data parallelism: auto (jit on one device, pmap on several,
  # shard_map with several processes) | jit | pmap |
  # shard_map.
  config.parallel = "auto"
  # Steps in one compiled call; the rest of an epoch runs single steps. More
  # than 1 only helps networks so small that the host is slower than the device.
  config.steps_per_call = 1
  config.log_every_steps = 50  # in metrics.jsonl and on the terminal
  config.profile = False  # write a trace of some steps to WORKDIR/profile
  # Folder of compiled programs: "" is JAX_COMPILATION_CACHE_DIR or the user's
  # cache folder; "off" keeps none. From Python, this field and the next two
  # need fer_jax.configure_process(config).
  config.compilation_cache = ""
  # GPU: what is launched as CUDA graphs: auto (XLA's choice) | off |
  # convolutions (these too: a step is one launch)
  config.cuda_graphs = "auto"
  # GPU: bit-equal results of the same configuration, run after run; steps may
  # be many times slower. On CPU they are bit-equal anyway.
  config.deterministic = False
  return config
