import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sgbench.core.errors import InputError
from sgbench.data import crop_to_multiple, decode_image, image_size, list_images, read_image, write_png

RGB = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
ORIENTATION = 274
WIDE = np.random.default_rng(1).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
WIDE[0, :3] = [[0, 128, 129], [65535, 65534, 65406], [257, 256, 255]]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(wide, colour_type):
    """Encode a PNG with 16 bits a sample, which Pillow cannot for RGB."""

    header = struct.pack(">IIBBBBB", wide.shape[1], wide.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(wide, order, orientation=1):
    """Encode an uncompressed RGB TIFF with 16 bits a sample."""
    height, width, _ = wide.shape
    pixels = wide.astype(f"{order}u2").tobytes()
    bits_at = 8 + len(pixels)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits_at), (259, 4, 1, 1), (262, 4, 1, 2)]
    tags += [(273, 4, 1, 8), (274, 4, 1, orientation), (277, 4, 1, 3), (278, 4, 1, height), (279, 4, 1, len(pixels))]
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, bits_at + 6)
    return start + pixels + struct.pack(f"{order}3H", 16, 16, 16) + directory + bytes(4)


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, name="image.bin"):
        (tmp_path / name).write_bytes(content)
        return read_image(tmp_path / name)

    return write_and_read


@pytest.mark.parametrize(
    ("file_format", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_keep_every_pixel(read, file_format, options):
    np.testing.assert_array_equal(read(encoded(Image.fromarray(RGB), file_format, **options)), RGB)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True})],
    ids=["TIFF", "TIFF with LZW", "PNG", "JPEG", "WebP"],
)
def test_an_orientation_is_not_applied_in_any_format_and_is_said(read, tmp_path, file_format, options, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = encoded(Image.fromarray(RGB), file_format, **options)
    with pytest.warns(UserWarning, match=rf"image\.bin' has orientation {orientation}; pixels are used as they are st"):
        pixels = read(encoded(Image.fromarray(RGB), file_format, exif=exif, **options))
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(stored))))
    assert image_size(tmp_path / "image.bin") == pixels.shape[:2] == (9, 7)


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_of_a_16_bit_tiff_is_not_applied(read, order):
    with pytest.warns(UserWarning, match="is 16-bit"), pytest.warns(UserWarning, match="has orientation 6"):
        pixels = read(tiff16(WIDE, order, orientation=6))
    np.testing.assert_array_equal(pixels, np.rint(WIDE / 257))


def test_an_orientation_that_only_xmp_gives_a_tiff_is_not_applied(read, tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    with pytest.warns(UserWarning, match="has orientation 6"):
        np.testing.assert_array_equal(read(encoded(Image.fromarray(RGB), "TIFF", tiffinfo={700: xmp})), RGB)
    assert image_size(tmp_path / "image.bin") == (9, 7)


@pytest.mark.parametrize(
    ("file_format", "options"), [("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True})], ids=["TIFF", "PNG", "WebP"]
)
def test_a_colour_profile_is_not_applied_and_said_if_it_is_not_srgb(read, file_format, options):
    plain = Image.fromarray(RGB)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(read(encoded(plain, file_format, icc_profile=srgb, **options)), RGB)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with pytest.warns(UserWarning, match=r"image\.bin' has a colour profile other than sRGB; pixels are used as they"):
        np.testing.assert_array_equal(read(encoded(plain, file_format, icc_profile=lab, **options)), RGB)


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([(b"gAMA", struct.pack(">I", 45455))], None),
        ([(b"gAMA", struct.pack(">I", 100000))], "gamma 1;"),
        ([(b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")], None),
    ],
    ids=["of sRGB", "linear", "overruled by an sRGB chunk"],
)
def test_a_gamma_is_not_applied_and_said_if_it_is_not_that_of_srgb(read, chunks, said):
    content = encoded(Image.fromarray(RGB), "PNG")
    marked = content[:33] + b"".join(chunk(*each) for each in chunks) + content[33:]
    with pytest.warns(UserWarning, match=said) if said else warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(read(marked), RGB)


@pytest.mark.parametrize("file_format", ["TIFF", "PNG"])
def test_the_first_of_several_pages_or_frames_is_read_and_said(read, file_format):
    pages = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}
    with pytest.warns(UserWarning, match=r"image\.bin' has 2 pages or frames, of which the first is read"):
        np.testing.assert_array_equal(read(encoded(Image.fromarray(RGB), file_format, **pages)), RGB)


def test_grey_palette_and_bilevel_become_rgb(read):
    grey = Image.fromarray(RGB).convert("L")
    np.testing.assert_array_equal(read(encoded(grey, "PNG")), np.repeat(np.asarray(grey)[:, :, None], 3, axis=2))
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(RGB[:, :, 0] > 127)
    np.testing.assert_array_equal(read(encoded(bilevel, "PNG"))[:, :, 1], np.asarray(bilevel) * 255)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_rgb_tiff_is_scaled_and_rounded(read, order):
    with pytest.warns(UserWarning, match=r"image\.bin' is 16-bit"):
        pixels = read(tiff16(WIDE, order))
    np.testing.assert_array_equal(pixels, np.rint(WIDE / 257))


def test_16_bit_rgb_png_is_scaled_and_rounded(read):
    with pytest.warns(UserWarning, match=r"image\.bin' is 16-bit and was converted to 8-bit RGB"):
        pixels = read(png16(WIDE, colour_type=2))
    np.testing.assert_array_equal(pixels, np.rint(WIDE / 257))
    assert pixels[0, :3].tolist() == [[0, 0, 1], [255, 255, 254], [1, 1, 1]]


def test_16_bit_grey_is_scaled_and_rounded(read):
    expected = np.repeat(np.rint(WIDE[:, :, :1] / 257), 3, axis=2)
    for content in (png16(WIDE[:, :, 0], colour_type=0), encoded(Image.fromarray(WIDE[:, :, 0]), "TIFF")):
        with pytest.warns(UserWarning, match="16-bit"):
            np.testing.assert_array_equal(read(content), expected)


def test_16_bit_grey_whose_0_is_white_is_inverted_as_8_bit_is(read):
    wide = encoded(Image.fromarray(WIDE[:, :, 0]), "TIFF", tiffinfo={262: 0})
    with pytest.warns(UserWarning, match="16-bit"):
        np.testing.assert_array_equal(read(wide)[:, :, 1], 255 - np.rint(WIDE[:, :, 0] / 257))
    narrow = encoded(Image.fromarray(RGB[:, :, 0]), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(read(narrow)[:, :, 1], np.asarray(Image.open(io.BytesIO(narrow))))


def test_cmyk_is_converted_with_a_warning(read):
    cmyk = Image.fromarray(RGB).convert("CMYK")
    with pytest.warns(UserWarning, match=r"image\.bin' is CMYK and was converted"):
        np.testing.assert_array_equal(read(encoded(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))


def test_ordinary_images_give_no_warning(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(encoded(Image.fromarray(RGB), "PNG"))


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(RGB).convert("RGBA"), "PNG"),
        encoded(Image.fromarray(RGB).convert("LA"), "PNG"),
        encoded(Image.fromarray(RGB).quantize(16), "PNG", transparency=3),
        encoded(Image.fromarray(RGB), "PNG", transparency=(1, 2, 3)),
        encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 4)), "WEBP"),
        png16(np.zeros((4, 4, 4), dtype=np.uint16), colour_type=6),
    ],
    ids=["rgba", "grey-alpha", "palette", "colour-key", "webp", "16-bit"],
)
def test_transparency_is_refused(read, content):
    with pytest.raises(InputError, match=r"image\.bin' has an alpha channel or a transparent colour"):
        read(content)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_other_pixels_are_refused(read, dtype):
    with pytest.raises(InputError, match=r"image\.bin' holds pixels of an unusual kind .TIFF, mode [FI]"):
        read(encoded(Image.fromarray(WIDE[:, :, 0].astype(dtype)), "TIFF"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("cut", [0, 7, 30, -40])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_damaged_files_are_refused_by_name(read, file_format, cut):
    content = encoded(Image.fromarray(RGB), file_format)
    with pytest.raises(InputError, match=r"image\.bin' cannot be read as an image"):
        read(content[:cut])


def test_files_that_are_no_images_are_refused(read, tmp_path):
    with pytest.raises(InputError, match="cannot be read as an image"):
        read(b"not an image", "fake.png")
    with pytest.raises(InputError, match=r"absent\.png' cannot be read"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match=r"absent\.png' cannot be read"):
        image_size(tmp_path / "absent.png")


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=r"pipe\.png' cannot be read as an image: it is not a regular file"):
            read(tmp_path / "pipe.png")


def test_the_content_of_a_file_is_decoded_by_the_same_rules(tmp_path):
    with pytest.warns(UserWarning, match=r"'store/a\.png' is 16-bit"):
        np.testing.assert_array_equal(decode_image(png16(WIDE, 2), "store/a.png"), np.rint(WIDE / 257))
    with pytest.raises(InputError, match=r"'store/a\.png' cannot be read as an image"):
        decode_image(b"", "store/a.png")


def test_image_size_is_height_and_width(tmp_path):
    write_png(tmp_path / "a.png", RGB)
    assert image_size(tmp_path / "a.png") == (9, 7)


def test_images_are_listed_by_name_without_hidden_and_other_files(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "c.txt", "d.TIFF", "e.webp"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG", "d.TIFF", "e.webp"]


def test_folders_without_images_are_refused_each_in_its_own_words(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder '.*absent'"):
        list_images(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no image; files that end in \.png"):
        list_images(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file' is a file; a folder of images is needed"):
        list_images(tmp_path / "file")


def test_crop_keeps_the_top_left():
    np.testing.assert_array_equal(crop_to_multiple(RGB, 4), RGB[:8, :4])
    assert crop_to_multiple(RGB, 1).shape == RGB.shape
    with pytest.raises(InputError, match=r"an image of 9×7 pixels is too small for scale 8"):
        crop_to_multiple(RGB, 8)


def test_png_is_written_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.png"
    write_png(path, RGB)
    write_png(path, RGB[::-1])
    np.testing.assert_array_equal(read_image(path), RGB[::-1])
    with pytest.raises(TypeError):
        write_png(path, RGB.astype(np.complex64))
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(read_image(path), RGB[::-1])
