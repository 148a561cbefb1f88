from collections import OrderedDict

DEFAULT_CONFIGS = OrderedDict(
    {
        "psnr": {
            "metric_opts": {"type": "PSNR", "test_y_channel": False},
            "metric_mode": "FR",
            "score_range": "~0, ~40",
        },
        "niqe": {
            "metric_opts": {"type": "Weighted", "file": "niqe_modelparameters.mat", "test_y_channel": True},
            "metric_mode": "NR",
            "lower_better": True,
            "score_range": "~0, ~100",
        },
        "piqe": {
            "metric_opts": {"type": "Contrast"},
            "metric_mode": "NR",
            "lower_better": True,
            "score_range": "0, 100",
        },
        "entropy": {"metric_opts": {"type": "RandomCrop"}, "metric_mode": "NR", "score_range": "0, 8"},
        "maniqa": {
            "metric_opts": {"type": "Weighted", "file": "ckpt_koniq10k.pt", "backbone": True, "test_img_size": 224},
            "metric_mode": "NR",
            "score_range": "~0, ~1",
        },
        "maniqa-kadid": {
            "metric_opts": {"type": "Weighted", "file": "ckpt_kadid10k.pt", "backbone": True},
            "metric_mode": "NR",
            "score_range": "~0, ~1",
        },
        "musiq": {
            "metric_opts": {"type": "Weighted", "file": "renamed.pth"},
            "metric_mode": "NR",
            "score_range": "~0, ~100",
        },
    }
)
