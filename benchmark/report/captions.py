"""What is said below each plot, in report.md and on the page."""

CAPTIONS = {
    "tradeoff": "Clean against robust accuracy, both on the same n images. Bars are 95 % "
    "intervals; the dashed line joins the methods that no other beats on both axes (by their "
    "means).",
    "fronts": "Fronts: settings of each method, means over seeds; the line is their upper concave "
    "hull, thin lines are those of single seeds ([fronts.md](fronts.md)).",
    "curves": "Accuracy on held-out validation images during training: mean over seeds, band from "
    "lowest to highest seed.",
    "mixing": "Weight of each learner in the mix, and its L2 distance from the global learner; "
    "mean over seeds, band from lowest to highest.",
    "radii": "Accuracy against the radius of the attack, which begins at eps 0 with clean "
    "accuracy: mean over seeds, bands are 95 % intervals. With the area below each curve: "
    "[radii.md](radii.md).",
    "corruptions": "Accuracy (%) under each corruption, mean over severities and seeds: "
    "[corruptions.md](corruptions.md).",
    "published": "Published figures and ours, on separate axes. See [published.md](published.md).",
}
