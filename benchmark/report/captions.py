"""What is said below each plot, in report.md and on the page."""

CAPTIONS = {
    "tradeoff": "Clean against robust accuracy, both on the same n images. Bars are 95 % "
    "intervals; the dashed line joins the methods that no other beats on both axes (by their "
    "means).",
    "fronts": "Fronts: settings of each method, means over seeds; the line is their upper concave "
    "hull. With several seeds, the band goes from the lowest to the highest of the hulls of single "
    "seeds, where all of them reach ([fronts.md](fronts.md)).",
    "differences": "Paired differences from one method on the same images and seeds, with 95 % "
    "intervals; under-trained methods are left out. Filled: p of at most 0.05, adjusted after "
    "Holm over all differences of the study ([differences.md](differences.md)).",
    "ranks": "Critical-difference diagrams: mean rank over seeds, the best on the left. A bar "
    "joins methods that Nemenyi's test does not tell apart at 5 %. Under-trained methods are left "
    "out. All seeds share one data set, so the ranks say nothing about other data.",
    "unions": "Accuracy under each attack alone, and under all of them at once (the last bar): an "
    "image counts if it is right under every attack. Thin lines are 95 % intervals.",
    "cost": "Robust accuracy against the gradient passes of training, per training image and "
    "relative to natural training. Bars are 95 % intervals. The training of networks that a "
    "method starts from or learns from is not counted; methods that train nothing are left out.",
    "curves": "Accuracy on held-out validation images during training, and where it was recorded "
    "how far the accuracy on training images is ahead of it: mean over seeds, band from lowest to "
    "highest seed.",
    "mixing": "Weight of each learner in the mix, and its L2 distance from the global learner; "
    "mean over seeds, band from lowest to highest.",
    "radii": "Accuracy against the radius of the attack, which begins at eps 0 with clean "
    "accuracy: mean over seeds, bands are 95 % intervals. With the area below each curve: "
    "[radii.md](radii.md).",
    "corruptions": "Accuracy (%) under each corruption, mean over severities and seeds: "
    "[corruptions.md](corruptions.md).",
    "published": "Published figures and ours, on separate axes. See [published.md](published.md).",
}
