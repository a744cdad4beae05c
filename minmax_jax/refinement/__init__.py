"""The second stage: a decoder learns from the masks of the first stage where objects end. No true mask is needed.

A class map is coarse: it knows roughly where an object is, not its outline. The decoder reads the frozen features of
the trunk and the image, learns from a few pixels that the first stage is sure of (`seeds`), and may change its mask
only where the image does (`edges`). What it answers is scaled so that 0.5 is the threshold (`calibration`).
Where class labels do not point at the objects, a declared prior can be the source of the seeds (`priors`).

After NEGEV (Belharbi et al., MIDL 2022), F-CAM (Belharbi et al., WACV 2022) and PixelCAM (Belharbi et al., MIDL 2025),
with the pairwise term of Obukhov et al., 2019 (gated CRF).
"""
