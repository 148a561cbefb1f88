"""Files of the library pyiqa, as ``pyiqa:FILE``: what its metrics read, and where that comes from.

pyiqa (https://github.com/chaofengc/IQA-PyTorch) publishes them without their hashes, except that many names end in the
first eight digits. What is known of the others is what somebody else has published. A file whose hash nobody has
published is used if it is there under its name, and is not downloaded.
"""

import re
from collections.abc import Mapping

from sgbench.assets.catalogue import Network
from sgbench.core.errors import unknown

_ALEXNET, _VGG16, _RESNET50 = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth", "resnet50-0676ba61.pth"
_CLIP, _CLIP_LARGE = "RN50.pt", "ViT-L-14.pt"
_NRQM, _NIQE = "NRQM_model.mat", "niqe_modelparameters.mat"

FILES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("psnr", "psnry", "ssim", "ssimc", "ms_ssim", "cw_ssim", "fsim", "gmsd", "mad", "nlpd"), ()),
    **dict.fromkeys(("vif", "vsi", "entropy", "piqe"), ()),
    "brisque": ("brisque_svm_weights.pth",),
    "brisque_matlab": ("brisque_matlab.mat",),
    "ckdn": ("resnet50-19c8e357.pth", "CKDN_model_best-38b27dc6.pth"),
    "clipiqa": (_CLIP,),
    "clipiqa+": (_CLIP, "CLIP-IQA+_learned_prompts-603f3273.pth"),
    "clipiqa+_rn50_512": (_CLIP, "CLIPIQA+_RN50_512-89f5d940.pth"),
    "clipiqa+_vitL14_512": (_CLIP_LARGE, "CLIPIQA+_ViTL14_512-e66488f2.pth"),
    "cnniqa": ("CNNIQA_koniq10k-e6f14c91.pth",),
    "dbcnn": (_VGG16, "DBCNN_scnn-7ea73d75.pth", "DBCNN_KonIQ10k-2de81c0a.pth"),
    "deepdc": ("vgg19-dcbb9e9d.pth",),
    "dists": (_VGG16, "DISTS_weights-f5e65c96.pth"),
    "hyperiqa": ("HyperIQA-resnet50-koniq10k-c96c41b1.pth",),
    "ilniqe": ("ILNIQE_templateModel.mat",),
    "lpips": (_ALEXNET, "LPIPS_v0.1_alex-df73285e.pth"),
    "lpips+": (_ALEXNET, "LPIPS_v0.1_alex-df73285e.pth"),
    "lpips-vgg": (_VGG16, "LPIPS_v0.1_vgg-a78928a0.pth"),
    "lpips-vgg+": (_VGG16, "LPIPS_v0.1_vgg-a78928a0.pth"),
    "maclip": (_CLIP,),
    "maniqa": ("ckpt_koniq10k.pt",),
    "maniqa-kadid": ("ckpt_kadid10k.pt",),
    "maniqa-pipal": ("MANIQA_PIPAL-ae6d356b.pth",),
    "metaiqa": ("Metaiqa_livec.pth",),
    "msswd": ("msswd_weights.pth",),
    "musiq": ("musiq_koniq_ckpt-e95806b9.pth",),
    "musiq-ava": ("musiq_ava_ckpt-e8d3f067.pth",),
    "musiq-paq2piq": ("musiq_paq2piq_ckpt-364c0c84.pth",),
    "musiq-spaq": ("musiq_spaq_ckpt-358bb6af.pth",),
    "nima": ("NIMA_InceptionV2_ava-b0c77c00.pth",),
    "nima-koniq": ("NIMA_koniq-250367ae.pth",),
    "nima-spaq": ("NIMA-spaq-46a7fcb7.pth",),
    "nima-vgg16-ava": ("NIMA_VGG16_ava-dc4e8265.pth",),
    "niqe": (_NIQE,),
    "niqe_matlab": ("niqe_matlab_params.mat",),
    "nrqm": (_NRQM,),
    "paq2piq": ("resnet18-f37072fd.pth", "P2P_RoIPoolModel-fit.10.bs.120-ca69882e.pth"),
    "pi": (_NRQM, _NIQE),
    "pieapp": ("PieAPPv0.1-0937b014.pth",),
    "qualiclip": (_CLIP, "QualiCLIP.pth"),
    "stlpips": ("alex_shift_tolerant.pth",),
    "stlpips-vgg": ("vgg_shift_tolerant.pth",),
    "topiq_fr": ("cfanet_fr_kadid_res50-2c4cc61d.pth",),
    "topiq_fr-pipal": ("cfanet_fr_pipal_res50-69bbe5ba.pth",),
    "topiq_nr": ("cfanet_nr_koniq_res50-9a73138b.pth",),
    "topiq_nr-flive": ("cfanet_nr_flive_res50-ded1c74e.pth",),
    "topiq_nr-spaq": ("cfanet_nr_spaq_res50-a7f799ac.pth",),
    "tres": (_RESNET50, "tres_koniq-f0502926.pth"),
    "tres-flive": (_RESNET50, "tres_flive-09b0de5b.pth"),
    "unique": ("resnet34-b627a593.pth", "UNIQUE.pt"),
    "uranker": ("URanker_ckpt-450eb36d.pth",),
    "wadiqam_fr": ("WaDIQaM-kadid-f7541ea5.pth",),
    "wadiqam_nr": ("WaDIQaM-NR-koniq-aaffea29.pth",),
}
"""The metrics that are offered, and the files that each reads.

Left out are those of sets, such as FID, those that also need a text, and those whose weights are whole repositories on
Hugging Face, whose code they run.
"""

_HUB = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
_CLIP = "https://openaipublic.azureedge.net/clip/models/"
_TORCHVISION = "https://download.pytorch.org/models/"

_KNOWN = {
    "DISTS_weights-f5e65c96.pth": "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
    "LPIPS_v0.1_alex-df73285e.pth": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "LPIPS_v0.1_vgg-a78928a0.pth": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "RN50.pt": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "ViT-B-32.pt": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-L-14.pt": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "alexnet-owt-7be5be79.pth": "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    "ckpt_koniq10k.pt": "a207f8ab57322e6be38ff5c8d019301dc032b454bef21c3c9f9dbf7974eebff6",
    "vgg16-397923af.pth": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
}
"""SHA-256 of files: of LPIPS and DISTS those in the packages lpips 0.1.4 and DISTS-pytorch 0.1, of CLIP those in its
addresses, of MANIQA on KonIQ-10k that of the authors' release."""

_SIZES = {
    "MANIQA_PIPAL-ae6d356b.pth": 543_335_435,
    "RN50.pt": 255_827_503,
    "ckpt_koniq10k.pt": 543_335_435,
    "musiq_koniq_ckpt-e95806b9.pth": 108_610_983,
}

_BACKBONES = re.compile(r"(alexnet-owt|resnet\d+|vgg\d+)-[0-9a-f]{8}\.pth")
"""Names of torchvision's files."""


def network(file: str) -> Network:
    """Return what is known of a file.

    Args:
        file: Its name.

    Raises:
        InputError: If no metric of `FILES` reads it.
    """
    if file not in (known := {each for files in FILES.values() for each in files}):
        raise unknown("file of pyiqa", file, sorted(known))
    digits = re.search(r"-([0-9a-f]{8})\.", file)
    sha256 = _KNOWN.get(file, digits[1] if digits else "")
    if file in ("RN50.pt", "ViT-B-32.pt", "ViT-L-14.pt"):
        url = f"{_CLIP}{sha256}/{file}"
    else:
        url = (_TORCHVISION if _BACKBONES.fullmatch(file) else _HUB) + file
    return Network(
        name=f"pyiqa:{file}",
        file=file,
        url=url,
        sha256=sha256,
        size=_SIZES.get(file),
        licence="see its source",
        whole=True,
    )
