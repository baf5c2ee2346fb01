"""Reading audio: formats, rates, channels, streaming and every kind of bad input."""

import os
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from polyamp.audio import mpeg_and_ogg, reading
from polyamp.errors import AudioError

RATE = 16_000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def tone(seconds: float, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def assert_one_line(error: pytest.ExceptionInfo, path: Path) -> None:
    message = str(error.value)
    assert str(path) in message and "\n" not in message


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
def test_lossless_16k_mono_is_read_unchanged(tmp_path, name):
    samples = np.random.default_rng(0).integers(-32768, 32768, 20_000).astype(np.int16)
    read = reading.read(write(tmp_path / name, samples))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, samples / np.float32(32768))


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000, 192_000])
def test_any_rate_gives_the_same_tone_at_the_same_time(tmp_path, rate):
    samples = tone(1.0, rate)
    read = reading.read(write(tmp_path / "a.wav", samples, rate, subtype="FLOAT"))
    assert abs(len(read) - RATE) <= 1
    inner = slice(1600, 14_400)  # Away from the filter's edges.
    np.testing.assert_allclose(read[inner], tone(1.0)[inner], atol=2e-4)


@pytest.mark.parametrize("channels", [2, 7])
def test_channels_are_averaged(tmp_path, channels):
    samples = np.random.default_rng(1).uniform(-1, 1, (5000, channels)).astype(np.float32)
    read = reading.read(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    np.testing.assert_allclose(read, samples.mean(1), atol=1e-6)


def test_of_channels_in_opposite_phase_one_is_inverted(tmp_path):
    samples = np.random.default_rng(1).uniform(-0.9, 0.9, 20 * RATE).astype(np.float32)  # Several chunks at two channels.
    ambience = np.random.default_rng(2).uniform(-0.1, 0.1, (len(samples), 2)).astype(np.float32)
    stereo = np.stack([samples, -0.8 * samples], 1) + ambience
    read = reading.read(write(tmp_path / "a.wav", stereo, subtype="FLOAT"))
    np.testing.assert_allclose(read, 0.5 * (stereo[:, 0] - stereo[:, 1]), atol=1e-6)


def test_phase_may_change_within_a_file_and_arrays_are_mixed_as_files_are(tmp_path):
    samples = np.random.default_rng(1).uniform(-0.9, 0.9, 60 * RATE).astype(np.float32)
    opposite = np.arange(len(samples)) // (20 * RATE) == 1  # From 20 to 40 s.
    stereo = np.stack([samples, np.where(opposite, -samples, samples)], 1)
    read = reading.read(write(tmp_path / "a.wav", stereo, subtype="FLOAT"))
    np.testing.assert_array_equal(reading.convert(stereo, RATE), read)
    heard = np.abs(read) > 0.9 * np.abs(samples)
    assert heard[: 16 * RATE].all() and heard[25 * RATE : 32 * RATE].all() and heard[49 * RATE :].all()


@pytest.mark.parametrize("disturbance", ["offset", "rumble", "hum", "clicks"])
def test_what_is_opposite_but_no_music_does_not_count(tmp_path, disturbance):
    rng = np.random.default_rng(0)
    time = np.arange(10 * RATE) / RATE
    middle = scipy.signal.lfilter([0.05], [1, -0.95], rng.standard_normal(len(time)))
    if disturbance == "clicks":
        side = np.zeros(len(time))
        side[rng.integers(0, len(time), 400)] = rng.normal(0.0, 1.0, 400)
    else:
        side = 0.3 * np.sin(2 * np.pi * {"offset": 0.0, "rumble": 20.0, "hum": 50.0}[disturbance] * time + 1.0)
    stereo = np.stack([0.1 * middle + side, 0.1 * middle - side], 1).astype(np.float32)
    np.testing.assert_allclose(reading.convert(stereo, RATE), 0.1 * middle, atol=1e-6)


def test_wide_stereo_is_averaged(tmp_path):
    middle, side = np.random.default_rng(3).uniform(-0.4, 0.4, (2, 20 * RATE)).astype(np.float32)
    wide = np.stack([middle + side, middle - side], 1)  # Correlation 0.
    read = reading.read(write(tmp_path / "a.wav", wide, subtype="FLOAT"))
    np.testing.assert_allclose(read, middle, atol=1e-6)


def test_a_name_with_a_null_byte_is_none():
    with pytest.raises(AudioError, match="no name of a file"):
        reading.read("a\0.wav")


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg"])
def test_lossy_formats_keep_time(tmp_path, name):
    noise = np.random.default_rng(4).standard_normal(88_200)
    samples = (0.3 * scipy.signal.lfilter([0.1], [1, -0.9], noise)).astype(np.float32)
    read = reading.read(write(tmp_path / name, samples, 44_100))
    expected = soxr.resample(samples, 44_100, RATE)
    assert abs(len(read) - len(expected)) < 0.1 * RATE
    lag = np.argmax(np.correlate(read[8000:24_000], expected[9000:23_000], "valid")) - 1000
    assert abs(lag) <= 1  # An MP3 encoder's delay that is not taken off would be some hundreds.


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.ac3"])
def test_what_libsndfile_does_not_know_goes_through_ffmpeg(tmp_path, name):
    source = write(tmp_path / "a.wav", np.stack([tone(1.5, 44_100), tone(1.5, 44_100) / 2], 1), 44_100)
    target = tmp_path / "strange -name: %d.x".replace(".x", Path(name).suffix)
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, f"file:{target}"], check=True)
    read = reading.read(target)
    assert abs(len(read) - 1.5 * RATE) < 0.1 * RATE
    assert np.std(read[4000:20_000]) == pytest.approx(0.75 * 0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_stream_is_read_whatever_the_block(tmp_path, rate):
    rng = np.random.default_rng(2)
    path = write(tmp_path / "a.flac", rng.uniform(-0.9, 0.9, (10 * rate + 17, 2)), rate)
    whole = reading.read(path)
    np.testing.assert_allclose(whole, soxr.resample(soundfile.read(path, dtype="float32")[0].mean(1), rate, RATE), atol=1e-6)
    for seconds in (0.1, 0.777, 3.0, 1000.0):
        blocks = list(reading.stream(path, seconds))
        assert {len(block) for block in blocks[:-1]} <= {round(seconds * RATE)}
        assert 0 < len(blocks[-1]) <= round(seconds * RATE)
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("suffix", [".wav", pytest.param(".mka", marks=needs_ffmpeg)])
def test_stream_has_constant_memory(tmp_path, suffix):
    path = write(tmp_path / "a.wav", np.zeros(20 * 60 * 8000, np.int16), 8000)  # 77 MB when read whole.
    if suffix != ".wav":
        target = path.with_suffix(suffix)
        subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-c:a", "copy", target], check=True)
        path = target
    tracemalloc.start()
    total = sum(len(block) for block in reading.stream(path, 5.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 20 * 60 * RATE
    assert peak < 20e6


@needs_ffmpeg
def test_an_abandoned_stream_ends_ffmpeg(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: started.append(popen(*args, **options)) or started[-1])
    source = write(tmp_path / "a.wav", tone(60.0))
    target = tmp_path / "a.mka"
    popen(["ffmpeg", "-v", "error", "-i", source, "-c:a", "copy", target]).wait()
    blocks = reading.stream(target, 1.0)
    next(blocks)
    blocks.close()
    assert len(started) == 1 and started[0].returncode is not None


def test_ten_milliseconds_are_enough(tmp_path):
    assert len(reading.read(write(tmp_path / "a.wav", tone(0.01, 44_100), 44_100))) == 160


def test_silence_is_read(tmp_path):
    assert not reading.read(write(tmp_path / "a.wav", np.zeros(4000, np.int16))).any()


def test_missing_directory_and_empty_files(tmp_path):
    empty = tmp_path / "empty.wav"
    empty.touch()
    cases = {
        tmp_path / "none.wav": "no such file",
        empty / "inside.wav": "no such file",
        tmp_path / ("long" * 100): "cannot be read .*too long",
        tmp_path: "directory",
        empty: "empty",
    }
    for path, words in cases.items():
        with pytest.raises(AudioError, match=words) as error:
            reading.read(path)
        assert_one_line(error, path)


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg", ".raw", ".m4a", ".m3u8"])
@pytest.mark.parametrize("ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False])
def test_text_is_refused_whatever_its_name(tmp_path, monkeypatch, suffix, ffmpeg):
    path = tmp_path / f"text{suffix}"
    path.write_text("Dear diary,\n\nthis is not audio at all.\n" * 100)
    if not ffmpeg:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AudioError, match="no audio that libsndfile" if ffmpeg else "install ffmpeg") as error:
        reading.read(path)
    assert_one_line(error, path)


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_truncated_flac_is_an_error(tmp_path, kept):
    path = write(tmp_path / "a.flac", np.random.default_rng(3).uniform(-0.5, 0.5, 80_000), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(AudioError, match="cut short|damaged") as error:
        reading.read(path)
    assert_one_line(error, path)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.rf64"])
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_truncated_uncompressed_audio_is_an_error(tmp_path, name, kept):
    whole = write(tmp_path / name, tone(60.0)).read_bytes()
    assert len(reading.read(tmp_path / name)) == 60 * RATE
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(AudioError, match=f"cut short, has {kept:.0%} of its audio") as error:
        reading.read(tmp_path / name)
    assert_one_line(error, tmp_path / name)


def write_with_length(path, length):
    """A second of sound, whose header says that it has so many bytes."""
    data = write(path, tone(1.0)).read_bytes()
    is_long = data.startswith(b"RF64")
    begin = data.index(b"ds64") + 16 if is_long else data.index(b"data") + 4
    number = length.to_bytes(8 if is_long else 4, "little")
    path.write_bytes(data[:begin] + number + data[begin + len(number) :])


@pytest.mark.parametrize("length", [0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_wav_files_that_do_not_know_their_length_are_read(tmp_path, length):
    write_with_length(tmp_path / "a.wav", length)
    assert len(reading.read(tmp_path / "a.wav")) == RATE


@pytest.mark.parametrize(("name", "length"), [("a.wav", 3 * 10**9), ("a.rf64", 6 * 10**9), ("a.rf64", 3 * 10**9)])
def test_truncated_audio_of_gigabytes_is_an_error(tmp_path, name, length):
    write_with_length(tmp_path / name, length)
    with pytest.raises(AudioError, match="cut short, has 0% of its audio") as error:
        reading.read(tmp_path / name)
    assert_one_line(error, tmp_path / name)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.float32([0.0, 20_000.0]), RATE, "far beyond full scale; give float in"),
        (np.float64([0.0, np.nan]), RATE, "NaN"),
        ([0, -12_000, 900], RATE, "int64 that are all of 16 bits; give them as int16"),
        (np.zeros(100), None, "a rate of None"),
        (np.zeros(100), "44100", "a rate of '44100'"),
    ],
)
def test_samples_of_another_range_are_errors(samples, rate, message):
    with pytest.raises(AudioError, match=message):
        reading.convert(samples, rate)


def test_integers_of_all_widths_are_of_their_full_range():
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        half = np.array([np.iinfo(dtype).max // 2 + 1, 0], dtype)
        np.testing.assert_array_equal(reading.convert(half, RATE), [0.5, 0.0])
    assert len(reading.convert(np.zeros(10, np.int64), RATE)) == 10
    assert reading.convert(np.int32([2000, -2000]), RATE).any()  # Of a recorder of 24 bits in silence.
    assert reading.convert(np.float32([5.0, 0.0]), np.int64(RATE)).max() == 5.0


def mp3_that_guesses_too_short(path):
    """Twelve seconds at a rate of bits that falls, without the tag of its encoder in the first frame: a guess says four."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * 44_100)
    samples = np.concatenate([noise, np.zeros(10 * 44_100)])
    soundfile.write(path, samples, 44_100, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    assert len(reading.read(path)) == 12 * RATE
    data = path.read_bytes()
    assert b"Xing" in data
    path.write_bytes(data.replace(b"Xing", bytes(4)))
    assert soundfile.info(path).duration < 4
    return data


@needs_ffmpeg
def test_mp3_files_that_do_not_know_their_length_are_read_to_their_end(tmp_path):
    whole = mp3_that_guesses_too_short(tmp_path / "a.mp3")
    assert len(reading.read(tmp_path / "a.mp3")) == pytest.approx(12 * RATE, abs=0.1 * RATE)
    (tmp_path / "two.mp3").write_bytes(whole + whole)
    assert len(reading.read(tmp_path / "two.mp3")) == pytest.approx(24 * RATE, abs=0.2 * RATE)


def test_mp3_files_that_do_not_know_their_length_are_not_cut_in_silence(tmp_path, monkeypatch):
    mp3_that_guesses_too_short(tmp_path / "a.mp3")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(AudioError, match="does not say how long it is; install ffmpeg") as error:
        reading.read(tmp_path / "a.mp3")
    assert_one_line(error, tmp_path / "a.mp3")


@pytest.mark.parametrize("rate", [48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 11_025])
@pytest.mark.parametrize("is_tagged", [True, False])
def test_ordinary_mp3_files_need_no_ffmpeg(tmp_path, monkeypatch, rate, is_tagged):
    """Whose guess is right, or whose encoder says how long they are; whatever tags there are."""
    monkeypatch.setattr(shutil, "which", lambda program: None)
    path = tmp_path / "a.mp3"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * rate)
    soundfile.write(path, samples, rate, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    data = path.read_bytes()
    if not is_tagged:
        data = data.replace(b"Info", bytes(4)).replace(b"Xing", bytes(4))
    cover = b"APETAGEX" + bytes(9000) if is_tagged else b""  # Without a length libmpg123 looks for sound in it.
    path.write_bytes(b"ID3\4\0\0\0\0\7\x68" + bytes(1000) + data + cover + b"TAG" + bytes(125))
    assert len(reading.read(path)) == pytest.approx(5 * RATE, abs=0.2 * RATE)
    # All frames hold the sound, and a little silence.
    assert 5 * rate <= mpeg_and_ogg.mp3_samples(path) < 5 * rate + 8 * 1152


@pytest.mark.parametrize("ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False])
def test_ogg_files_one_after_another_are_read_all_or_not_at_all(tmp_path, monkeypatch, ffmpeg):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.ogg", tone(3.0), RATE, format="OGG", subtype="VORBIS")
    assert len(reading.read(tmp_path / "a.ogg")) == 3 * RATE
    both = tmp_path / "both.ogg"
    both.write_bytes((tmp_path / "a.ogg").read_bytes() + (tmp_path / "b.ogg").read_bytes())
    if ffmpeg:
        assert len(reading.read(both)) == pytest.approx(6 * RATE, abs=0.05 * RATE)
    else:
        monkeypatch.setattr(shutil, "which", lambda program: None)
        with pytest.raises(AudioError, match="does not say how long it is"):
            reading.read(both)


@needs_ffmpeg
@pytest.mark.parametrize("flags", ["faststart", "frag_keyframe+empty_moov"])
def test_m4a_files_cut_short_are_errors_wherever_their_index_is(tmp_path, flags):
    path = write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE))
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-movflags", flags, tmp_path / "a.m4a"], check=True)
    assert len(reading.read(tmp_path / "a.m4a")) == pytest.approx(10 * RATE, abs=0.2 * RATE)
    data = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(AudioError, match="could not read it to the end") as error:
        reading.read(tmp_path / "a.m4a")
    assert_one_line(error, tmp_path / "a.m4a")


@needs_ffmpeg
def test_damage_that_ffmpeg_reads_over_is_a_warning(tmp_path, caplog):
    path = write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE))
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, tmp_path / "a.m4a"], check=True)
    reading.read(tmp_path / "a.m4a")
    assert not caplog.text
    data = bytearray((tmp_path / "a.m4a").read_bytes())
    data[20_000:40_000] = bytes(20_000)
    (tmp_path / "a.m4a").write_bytes(data)
    reading.read(tmp_path / "a.m4a")
    assert "a.m4a: damaged, some of it may be missing (ffmpeg: " in caplog.text


def test_a_wav_file_without_samples_is_empty_whatever_follows(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(0))
    after = b"LIST" + (12).to_bytes(4, "little") + b"INFOISFT\0\0\0\0"
    data = path.read_bytes() + after
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    with pytest.raises(AudioError, match="has no samples") as error:
        reading.read(path)
    assert_one_line(error, path)


@needs_ffmpeg
def test_a_video_without_sound_says_so(tmp_path):
    path = tmp_path / "a.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=32x32:d=0.2", path], check=True)
    with pytest.raises(AudioError, match="matches no streams") as error:
        reading.read(path)
    assert_one_line(error, path)


@needs_ffmpeg
def test_files_of_programs_that_were_stopped_or_wrote_to_a_pipe_are_read(tmp_path):
    path = write(tmp_path / "a.wav", tone(1.0))
    data = path.read_bytes()
    begin = data.index(b"data") + 4
    path.write_bytes(data[:begin] + bytes(4) + data[begin + 4 :])
    assert len(reading.read(path)) == RATE
    write(path, tone(20.0))
    with (tmp_path / "a.flac").open("wb") as pipe:
        subprocess.run(f"ffmpeg -v error -i {path} -f flac - | cat", shell=True, check=True, stdout=pipe)
    assert len(reading.read(tmp_path / "a.flac")) == 20 * RATE


def test_without_ffmpeg_they_are_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tone(1.0))
    data = path.read_bytes()
    begin = data.index(b"data") + 4
    path.write_bytes(data[:begin] + bytes(4) + data[begin + 4 :])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AudioError, match="does not say how long it is; install ffmpeg") as error:
        reading.read(path)
    assert_one_line(error, path)


@needs_ffmpeg
def test_mp3_in_a_wav_file_may_end_earlier_than_it_says(tmp_path):
    write(tmp_path / "a.wav", tone(5.0, 44_100), 44_100)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", "mp3", tmp_path / "b.wav"], check=True)
    assert abs(len(reading.read(tmp_path / "b.wav")) - 5 * RATE) < 3000


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
@pytest.mark.parametrize("suffix", [".wav", ".flac", pytest.param(".m4a", marks=needs_ffmpeg)])
def test_names_that_are_no_text_are_read(tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    write(tmp_path / "a.wav", tone(1.0))
    if suffix == ".m4a":
        subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", path], check=True)
    else:
        write(tmp_path / f"b{suffix}", tone(1.0)).rename(path)
    assert abs(len(reading.read(path)) - RATE) < 2500


@needs_ffmpeg
def test_truncated_m4a_is_an_error(tmp_path):
    target = tmp_path / "a.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", write(tmp_path / "a.wav", tone(5.0)), target], check=True)
    target.write_bytes(target.read_bytes()[:5000])
    with pytest.raises(AudioError) as error:
        reading.read(target)
    assert_one_line(error, target)


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_zero_length_is_an_error(tmp_path, rate):
    path = write(tmp_path / "a.wav", np.zeros(0, np.int16), rate)
    with pytest.raises(AudioError, match="no samples") as error:
        reading.read(path)
    assert_one_line(error, path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound_are_an_error(tmp_path, value):
    samples = tone(1.0, 22_050)
    samples[1000] = value
    path = write(tmp_path / "a.wav", samples, 22_050, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN") as error:
        reading.read(path)
    assert_one_line(error, path)


def test_an_absurd_rate_is_an_error(tmp_path):
    path = write(tmp_path / "a.wav", tone(0.1), 1)
    with pytest.raises(AudioError, match="1 samples per second"):
        reading.read(path)


def test_wav_bytes_keep_16_bit_audio_and_clip():
    samples = np.arange(-32768, 32768).astype(np.float32) / 32768
    np.testing.assert_array_equal(reading.decode_wav(reading.write_wav_bytes(samples)), samples)
    clipped = reading.decode_wav(reading.write_wav_bytes(np.float32([1.7, -1.7])))
    np.testing.assert_array_equal(clipped, np.float32([32767 / 32768, -1]))


def test_decode_wav_resamples_and_refuses_other_bytes(tmp_path):
    path = write(tmp_path / "a.flac", tone(1.0, 48_000), 48_000)
    np.testing.assert_array_equal(reading.decode_wav(path.read_bytes()), reading.read(path))
    for data in (b"", b"not audio" * 50):
        with pytest.raises(AudioError, match="record 7"):
            reading.decode_wav(data, name="record 7")


class TestRepeated:
    @pytest.fixture
    def decoded(self, monkeypatch):
        """How often a file was decoded."""
        paths = []
        stream = reading.stream
        monkeypatch.setattr(reading, "stream", lambda path: paths.append(path) or stream(path, 0.25))
        return paths

    def test_gives_the_same_blocks_and_decodes_once(self, tmp_path, decoded):
        blocks = reading.of_file(write(tmp_path / "a.wav", tone(1.1)))
        first, second = list(blocks()), list(blocks())
        assert [len(block) for block in second] == [4000] * 4 + [1600] and len(decoded) == 1
        np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))
        np.testing.assert_array_equal(np.concatenate(second), reading.read(tmp_path / "a.wav"))

    def test_does_not_keep_long_files(self, tmp_path, decoded):
        path = write(tmp_path / "a.wav", tone(1.1))
        blocks = reading.Repeated(lambda: reading.stream(path), seconds=1.0)
        np.testing.assert_array_equal(np.concatenate(list(blocks())), np.concatenate(list(blocks())))
        assert len(decoded) == 2 and blocks._kept is None

    def test_does_not_keep_what_was_not_read_to_its_end(self, tmp_path, decoded):
        blocks = reading.of_file(write(tmp_path / "a.wav", tone(1.1)))
        next(blocks())
        assert len(np.concatenate(list(blocks()))) == 17_600 and len(decoded) == 2
