"""JPEG and PNG: what is taken comes out as by OpenCV; what is in doubt is refused by name."""

import io
import struct
import zlib
from array import array

import cv2
import numpy as np
import pytest
from PIL import Image

from lightvla_ros.errors import ImageError
from lightvla_ros.policy.compressed_images import CompressedPicture
from lightvla_ros.policy.jpeg_segments import MAX_SCANS
from lightvla_ros.policy.png_chunks import SIGNATURE

SUBSAMPLINGS = {
    '444': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    '440': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    '422': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    '420': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    '411': cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def picture(height=96, width=133):
    """A scene with noise, uint8 [H, W, 3] RGB."""
    random = np.random.default_rng(height)
    coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + random.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def encode(kind, *options, image=None):
    image = picture() if image is None else image
    stored = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(kind, stored, options)[1].tobytes()


def by_pillow(mode='RGB', kind='JPEG', **options):
    file = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(file, kind, **options)
    return file.getvalue()


def by_opencv(data):
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def with_segment(jpeg, marker=0xE1, content=bytes(2000), times=1):
    segment = bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content
    return jpeg[:2] + segment * times + jpeg[2:]


def exif_turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    return by_pillow(exif=exif)


def refusal(data, text=''):
    with pytest.raises(ImageError) as caught:
        CompressedPicture(data, text).decode()
    return caught.value.code, str(caught.value)


# Good pictures


@pytest.mark.parametrize('kind', ['baseline', 'progressive', 'restarts'])
@pytest.mark.parametrize('subsampling', SUBSAMPLINGS)
def test_jpeg_pixels_are_those_of_opencv(kind, subsampling):
    options = {'baseline': (), 'progressive': PROGRESSIVE}.get(
        kind, (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)
    )
    for quality in (40, 95):
        data = encode(
            '.jpg',
            *options,
            *(cv2.IMWRITE_JPEG_QUALITY, quality),
            *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SUBSAMPLINGS[subsampling]),
        )
        np.testing.assert_array_equal(CompressedPicture(data).decode(), by_opencv(data))


@pytest.mark.parametrize(
    'data',
    [
        encode('.jpg', image=picture()[..., 0]),
        by_pillow('L', progressive=True),
        by_pillow(keep_rgb=True),
        exif_turned(),
        with_segment(encode('.jpg')),
        encode('.jpg') + bytes(500),
        encode('.png'),
        encode('.png', image=picture()[..., 0]),
        by_pillow(kind='PNG'),
        by_pillow('P', 'PNG', transparency=3),
        by_pillow('RGBA', 'PNG'),
        by_pillow('1', 'PNG'),
        encode('.png', image=picture(1, 1)),
    ],
    ids=[
        'grey JPEG',
        'grey progressive',
        'RGB in JPEG',
        'EXIF turn is not followed',
        'with a long comment',
        'filled up behind the end, as some drivers do',
        'PNG',
        'grey PNG',
        "Pillow's PNG",
        'palette',
        'alpha',
        'one bit',
        'one pixel',
    ],
)
def test_good_pictures_of_all_kinds(data):
    image = CompressedPicture(data).decode()
    assert image.shape == by_opencv(data).shape
    np.testing.assert_array_equal(image, by_opencv(data))


def test_interlaced_png():
    pixels = picture(7, 5)
    rows = b''.join(
        b'\0' + pixels[row, column::across].tobytes()
        for first, column, down, across in (
            *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
            *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
        )
        for row in range(first, 7, down)
        if pixels[row, column::across].size
    )
    np.testing.assert_array_equal(CompressedPicture(png(5, 7, rows, interlaced=1)).decode(), pixels)


def test_what_rclpy_hands_over():
    data = encode('.png')
    np.testing.assert_array_equal(CompressedPicture(array('B', data)).decode(), picture())


# What a decoder mends


def overwritten(data, count):
    at = len(data) // 2
    return data[:at] + np.random.default_rng(1).bytes(count) + data[at + count :]


def lost(data, count):
    at = len(data) // 2
    return data[:at] + data[at + count :]


@pytest.mark.parametrize('damage', [overwritten, lost])
@pytest.mark.parametrize('options', [(), PROGRESSIVE], ids=['baseline', 'progressive'])
def test_a_jpeg_damaged_in_the_middle_is_refused(damage, options):
    """OpenCV makes a picture of each of these, with a line on stderr."""
    data = damage(encode('.jpg', *options, image=picture(256, 256)), 1400)
    assert by_opencv(data) is not None
    code, text = refusal(data)
    assert code == 'bad_data'
    assert text.startswith('the JPEG is damaged')


@pytest.mark.parametrize('place', range(8, 200, 16))
def test_a_png_with_one_byte_changed_is_refused(place):
    data = bytearray(encode('.png', image=picture(8, 8)))
    assert len(data) > 200
    data[place] ^= 1
    assert refusal(bytes(data))[0] in ('bad_data', 'bad_size', 'bad_encoding')


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'no picture',
        b'\xff\xd8\xff',
        encode('.png')[:-50],
        encode('.png')[:-12],
        encode('.jpg')[:-50],
        encode('.jpg')[:-2],
        encode('.jpg')[:100],
        encode('.bmp'),
    ],
    ids=[
        'empty',
        'text',
        'start',
        'cut PNG',
        'PNG without its end',
        'cut JPEG',
        'JPEG without its end',
        'cut JPEG header',
        'BMP',
    ],
)
def test_cut_and_foreign_data(data):
    assert refusal(data)[0] == 'bad_data'


# What costs far more than its size


def many_scans(scans):
    """A grey progressive JPEG whose last scan is repeated; each costs a whole decoding."""
    data = encode('.jpg', *PROGRESSIVE, image=np.full((64, 64), 128, np.uint8))
    table, scan = data.rindex(b'\xff\xc4'), data.rindex(b'\xff\xda')
    return data[:-2] + data[min(table, scan) : -2] * scans + data[-2:]


def png(width, height, rows, interlaced=0, packed=None, bits=8, more=b''):
    """A PNG in RGB with these rows, each with its filter in front."""
    header = struct.pack('>IIBBBBB', width, height, bits, 2, 0, 0, interlaced)
    body = zlib.compress(rows, 9) if packed is None else packed
    return SIGNATURE + chunk(b'IHDR', header) + more + chunk(b'IDAT', body) + chunk(b'IEND', b'')


def chunk(kind, content):
    return (
        struct.pack('>I', len(content))
        + kind
        + content
        + struct.pack('>I', zlib.crc32(kind + content))
    )


def rows(height=64, width=64):
    return (b'\0' + bytes(3 * width)) * height


def test_a_jpeg_with_hundreds_of_scans_is_refused_by_name():
    code, text = refusal(many_scans(300))
    assert code == 'bad_size'
    assert f'more than {MAX_SCANS} scans' in text


def test_a_huge_progressive_jpeg_is_refused_before_decoding():
    """Two of 4096 x 4096 pixels took longer than max_inference_time: a fault."""
    data = bytearray(encode('.jpg', *PROGRESSIVE))
    frame = data.index(b'\xff\xc2')
    data[frame + 5 : frame + 9] = bytes((16, 0, 16, 0))
    assert refusal(bytes(data)) == (
        'bad_size',
        'the JPEG has 10 scans of 4096 x 4096 pixels; publish smaller or baseline JPEGs',
    )


def test_a_png_whose_chunk_says_four_gigabytes_is_refused_at_once():
    """61 bytes: OpenCV allocates what the length says."""
    data = png(64, 64, rows())[:61]
    data = data[:33] + b'\xff\xff\xff\xf0' + data[37:]
    assert refusal(data) == (
        'bad_data',
        f'the PNG is cut short or damaged: a chunk ends at byte {33 + 12 + 0xFFFFFFF0}',
    )


def test_a_png_with_a_byte_inserted_is_refused_at_once():
    data = encode('.png')
    assert refusal(data[:33] + b'\x7f' + data[33:])[0] == 'bad_data'


@pytest.mark.parametrize(
    ('data', 'code', 'words'),
    [
        (png(64, 64, bytes(50_000_000)), 'bad_data', 'more pixels'),
        (png(64, 64, rows(32)), 'bad_data', 'fewer pixels'),
        (png(64, 64, b'', packed=zlib.compress(rows())[:-4]), 'bad_data', 'fewer pixels'),
        (png(64, 64, rows(), more=chunk(b'zTXt', bytes(9)) * 20_000), 'bad_data', 'chunks'),
        (png(64, 64, rows(), more=chunk(b'tEXt', bytes(2_000_000))), 'bad_size', 'too many'),
        (encode('.jpg') + bytes(2_000_000), 'bad_size', 'too many'),
        (with_segment(encode('.jpg'), 0xFE, b'', times=1000), 'bad_data', 'segments'),
    ],
    ids=['bomb', 'rows lost', 'sum lost', 'chunks', 'text', 'tail', 'comments'],
)
def test_work_is_bounded_by_the_announced_size(data, code, words):
    assert refusal(data)[0] == code
    assert words in refusal(data)[1]


def test_packed_texts_are_not_unpacked(monkeypatch):
    """900 of them in 7 MB kept OpenCV busy for 30 s."""
    seen = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, 'imdecode', lambda *a: seen.append(a[0].tobytes()) or decode(*a))
    text = chunk(b'zTXt', b'x\0\0' + zlib.compress(bytes(1000)))
    CompressedPicture(png(64, 64, rows(), more=text)).decode()
    assert seen == [png(64, 64, rows())]


def changed_frame(place, value, marker=0xC0):
    data = bytearray(encode('.jpg'))
    at = data.index(b'\xff\xc0')
    data[at + 1] = marker
    data[at + 4 + place] = value
    return bytes(data)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (by_pillow('CMYK'), '4 channels'),
        (changed_frame(0, 12), '12 bits'),
        (changed_frame(0, 8, 0xC9), 'arithmetic'),
        (changed_frame(0, 8, 0xC3), 'lossless'),
        (png(64, 64, rows(), bits=16), '16 bits'),
        (encode('.png', image=picture()[..., 0].astype(np.uint16) * 256), '16 bits'),
        (png(64, 64, rows(), more=chunk(b'acTL', bytes(8))), 'animation'),
    ],
    ids=['CMYK', '12 bit', 'arithmetic', 'lossless', '16 bit', 'depth', 'animation'],
)
def test_what_is_no_colour_or_grey_picture_of_8_bits_is_refused_by_name(data, words):
    code, text = refusal(data)
    assert code == 'bad_encoding'
    assert words in text


@pytest.mark.parametrize('kind', ['.png', '.jpg'])
@pytest.mark.parametrize('side', [0, 5000])
def test_announced_size_is_refused_before_decoding(kind, side):
    """The data hold 64 x 64 pixels only: a decoder would call it corrupt."""
    data = bytearray(encode(kind, image=picture(64, 64)))
    if kind == '.png':
        data[16:20] = side.to_bytes(4)
    else:
        frame = data.index(b'\xff\xc0')
        data[frame + 7 : frame + 9] = side.to_bytes(2)
    code, text = refusal(bytes(data))
    assert code == 'bad_size'
    assert f'{side} x 64 pixels' in text


# CompressedImage.format


@pytest.mark.parametrize(
    'text',
    [
        *('rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed bgr8', 'bgr8; png compressed bgr8'),
        *('rgba8; png compressed bgr8', 'mono8; jpeg compressed ', 'mono8; jpeg compressed mono8'),
        *(
            'yuv422; jpeg compressed mono8',
            'bayer_rggb8; jpeg compressed bgr8',
            'rgb16; jpeg compressed bgr8',
        ),
        *('jpeg', 'png', 'jpg', '', 'rgb8', 'ffmpeg 7; who knows'),
    ],
)
def test_formats_of_plain_pictures_change_nothing(text):
    np.testing.assert_array_equal(CompressedPicture(encode('.png'), text).decode(), picture())


@pytest.mark.parametrize(
    'text',
    ['rgb8; jpeg compressed rgb8', 'bgr8; png compressed rgb8', 'rgba8;jpeg compressed rgb8'],
)
def test_channels_that_are_declared_swapped_are_swapped_back(text):
    """compressed_image_transport's own subscriber does the same."""
    stored = encode('.png', image=picture()[..., ::-1])
    np.testing.assert_array_equal(CompressedPicture(stored, text).decode(), picture())


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('bayer_rggb8; jpeg compressed ', 'Bayer'),
        ('bayer_grbg8; jpeg compressed mono8', 'Bayer'),
        ('bayer_rggb16; png compressed ', 'Bayer'),
        ('16UC1; png compressed ', 'depth'),
        ('16UC1; compressedDepth png', 'depth'),
        ('32FC1; compressedDepth', 'depth'),
        ('mono16; png compressed ', '16 bits'),
        ('rgb16; png compressed bgr16', 'bgr16|can be stored'),
        ('rgb8; jpeg compressed ', 'in which order'),
        ('8UC3; png compressed ', 'in which order'),
    ],
)
def test_formats_of_other_things_are_refused_by_name(text, words):
    grey = encode('.jpg', image=picture()[..., 0])
    code, said = refusal(grey, text)
    assert code == 'bad_encoding'
    assert any(word in said for word in words.split('|'))
    assert text.split(';')[0] in said


def test_a_format_of_megabytes_is_cut():
    _, said = refusal(encode('.jpg'), '16UC1; ' + ' ' * 3_000_000 + 'compressedDepth')
    assert len(said) < 300
