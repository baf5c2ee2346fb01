"""Streaming: the same events whatever the blocks, those of the whole file, steps equal to layers, latency, bad input."""

import dataclasses
import itertools
import tracemalloc
import types

import keras
import numpy as np
import pytest

from polyamp import hparams, live_layers, models, state_stream, streaming, transcribe
from polyamp.audio.spectrogram import make_spectrogram
from polyamp.errors import AudioError, DataError
from polyamp.models import autoregressive
from polyamp.notes import states

SMALL = {"model_complexity": 3, "fc_size": 24, "recurrent_units": 16}
VARIANTS = {
    "compact": ("autoregressive_compact", {}),
    "low latency": ("autoregressive_low_latency", {"recurrent_units": 16, "velocity_smoothing": 0.5}),
    "factored": ("autoregressive_tiny", {"conv_rank": 3}),
    "published": ("autoregressive", SMALL),
    "published shifted": (
        "autoregressive",
        SMALL | {"acoustic_kernels": [3, 1, 5], "label_shift": 2, "window": 1024, "hop": 256},
    ),
    "odd hop": ("autoregressive_tiny", {"hop_length": 300, "spec_windows": [2000, 900], "velocity_smoothing": 0.5}),
    "hop above the window": ("autoregressive", SMALL | {"window": 512, "hop": 700}),
}


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def variant(request):
    """A model whose weights are random, and make it answer all kinds of states."""
    preset, overrides = VARIANTS[request.param]
    settings = hparams.resolve("AUTOREGRESSIVE", preset, {**overrides, "predict_window_seconds": 1.0})
    keras.utils.set_random_seed(1)
    model = models.build("AUTOREGRESSIVE", settings)
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if any(name in variable.path for name in ("variance", "gamma")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif "head_bias" in variable.path:
            variable.assign(np.zeros(variable.shape))
        elif any(name in variable.path for name in ("mean", "beta", "pitch_bias", "recurrence/")):
            variable.assign(rng.normal(0, 3 if "head" in variable.path else 1, variable.shape))
        elif "expand/kernel" in variable.path:
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model, settings


def eager():
    """A tiny model whose random weights answer some hundreds of events a second, and its settings."""
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny", {"onset_boost": 4.0})
    keras.utils.set_random_seed(2)
    return models.build("AUTOREGRESSIVE", settings), settings


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    samples = int(seconds * 16_000)
    return (0.2 * rng.normal(size=samples) * np.sin(np.arange(samples) / 3000)).astype(np.float32)


def stream(model, settings, audio, sizes):
    """The events of audio in blocks of some sizes, in turn."""
    transcriber = streaming.StreamingTranscriber(state_stream.of_model(model, settings))
    events, start, number = [], 0, 0
    while start < len(audio):
        size = sizes[number % len(sizes)]
        events += transcriber.push(audio[start : start + size])
        start, number = start + size, number + 1
    return events + transcriber.finish()


def by_pitch(notes):
    """Sorted so that times which differ in the last digit only do not change the order."""
    order = np.lexsort((notes.onset, notes.pitch))
    return dataclasses.replace(notes, **{field.name: getattr(notes, field.name)[order] for field in dataclasses.fields(notes)})


def test_events_are_those_of_the_whole_file(variant):
    model, settings = variant
    audio = noise(3.3)
    rolls = transcribe.predict_states(model, [audio], settings)
    assert len(np.unique(rolls["state"])) >= 3 and (rolls["state"][1:] != rolls["state"][:-1]).mean() > 0.002
    of_file = by_pitch(transcribe.transcribe(model, lambda: [audio], settings))
    streamed = by_pitch(streaming.to_notes(stream(model, settings, audio, [1000])))
    assert len(of_file) == len(streamed) > 10
    np.testing.assert_array_equal(of_file.pitch, streamed.pitch)
    np.testing.assert_allclose(of_file.onset, streamed.onset, atol=1e-5)
    np.testing.assert_allclose(of_file.offset, streamed.offset, atol=1e-5)
    assert np.abs(of_file.velocity - streamed.velocity).max() <= 1


def test_memory_does_not_grow_with_the_length_of_a_recording():
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny", {"onset_boost": -20.0})
    network = state_stream.of_model(models.build("AUTOREGRESSIVE", settings), settings)
    block = noise(2.0)

    def peak(blocks):
        tracemalloc.start()
        assert not len(transcribe.transcribe(network, lambda: itertools.repeat(block, blocks), settings))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(20) - peak(5) < 100_000  # Bytes; the rolls of 30 s have 1.3 million.


def test_states_do_not_depend_on_where_windows_begin(variant):
    model, settings = variant
    audio = noise(2.5)
    one = transcribe.predict_states(model, [audio], hparams.merge(settings, {"predict_window_seconds": 60.0}))
    several = transcribe.predict_states(model, [audio[:7], audio[7:]], settings)
    np.testing.assert_array_equal(one["state"], several["state"])
    assert len(one["state"]) == 1 + len(audio) // settings.hop_length


def test_blocks_of_any_size_give_the_same_events(variant):
    model, settings = variant
    audio = noise(1.2)
    whole = stream(model, settings, audio, [len(audio)])
    assert whole
    for sizes in ([1, 3000], [settings.hop_length], [160], [511, 0, 513], [777]):
        assert stream(model, settings, audio, sizes) == whole, sizes


@pytest.mark.parametrize("sizes", [{}, {"hop_length": 300, "spec_windows": [2000, 900]}], ids=["", "odd hop"])
def test_what_is_streamed_is_balanced_as_the_whole_file(sizes):
    """After five seconds, before which nothing is known."""
    plain, balanced = (
        hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny", {"onset_boost": 4.0, "predict_balance": share} | sizes)
        for share in (0.0, 1.0)
    )
    keras.utils.set_random_seed(2)
    model = models.build("AUTOREGRESSIVE", plain)
    audio = noise(9.3)
    of_plain, of_balanced = (transcribe.predict_states(model, [audio], settings) for settings in (plain, balanced))
    differ = (of_plain["state"] != of_balanced["state"]).any(axis=1)
    second = plain.frames_per_second
    assert not differ[: int(4.8 * second)].any() and differ[int(6.2 * second) :].mean() > 0.5
    network = state_stream.of_model(model, balanced)
    for size in (700, len(audio)):
        streamed = by_pitch(streaming.to_notes(stream(model, balanced, audio, [size])))
        of_file = by_pitch(transcribe.transcribe(network, lambda: [audio[:5000], audio[5000:]], balanced))
        assert len(streamed) == len(of_file) > 100
        np.testing.assert_array_equal(streamed.pitch, of_file.pitch)
        np.testing.assert_allclose(streamed.onset, of_file.onset, atol=1e-9)
    assert np.mean(network.predict([audio])["state"] == of_balanced["state"]) > 0.999


def test_single_samples_are_blocks_too():
    model, settings = eager()
    audio = noise(0.2)
    whole = stream(model, settings, audio, [len(audio)])
    assert whole and stream(model, settings, audio, [1]) == whole


def test_each_frame_of_the_spectrum_is_that_of_the_layer(variant):
    _, settings = variant
    layer = make_spectrogram(settings)
    length, step = live_layers.spectrum_step(settings)
    audio = noise(1.0)
    whole = keras.ops.convert_to_numpy(layer(audio[None]))[0]
    hop, half = settings.hop_length, length // 2
    for frame in range(-(-half // hop), len(whole) - -(-half // hop) - 1):
        samples = audio[frame * hop - half : frame * hop - half + length]
        np.testing.assert_allclose(step(samples), whole[frame], atol=2e-5)


def test_an_event_comes_no_later_than_the_latency_says(variant):
    model, settings = variant
    transcriber = streaming.StreamingTranscriber(state_stream.of_model(model, settings))
    assert transcriber.latency_ms == settings.latency_ms
    rolls = transcribe.predict_states(model, [noise(2.0)], settings)
    known = {}  # For every frame that has an onset, after how many samples it was told.
    audio, block = noise(2.0), 50
    begins = np.flatnonzero((rolls["state"] >= states.ONSET).any(axis=1))
    count = 0
    for start in range(0, len(audio), block):
        if any(event.is_on for event in transcriber.push(audio[start : start + block])):
            known[int(begins[count])] = start + block
            count += 1
    assert count > 3
    for frame, samples in known.items():
        heard = 1000 * samples / 16_000 - 1000 * frame / settings.frames_per_second
        assert settings.latency_ms <= heard + 1e-6 < settings.latency_ms + 1000 * block / 16_000 + 1e-3


def test_integers_are_of_their_types_full_range():
    network = state_stream.of_model(*eager())
    integers = np.rint(noise(2.0) * 32_767).astype(np.int16)
    events = []
    for samples in (integers, integers / np.float32(32_768), integers / np.float32(4096)):
        transcriber = streaming.StreamingTranscriber(network)
        events.append(transcriber.push(samples) + transcriber.finish())
    assert events[0] == events[1] != events[2] and events[0]
    with pytest.raises(AudioError, match="samples of the type uint8"):
        streaming.StreamingTranscriber(network).push(np.zeros(8, np.uint8))


def test_memory_does_not_grow():
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny")
    transcriber = streaming.StreamingTranscriber(state_stream.of_model(models.build("AUTOREGRESSIVE", settings), settings))

    def size():
        seen, held, total = set(), [transcriber], 0
        while held:
            one = held.pop()
            if id(one) in seen or isinstance(one, type | keras.Layer):
                continue
            seen.add(id(one))
            if isinstance(one, np.ndarray):
                total += one.nbytes
            elif isinstance(one, list | tuple | dict):
                held += one.values() if isinstance(one, dict) else one
                total += len(one)
            elif callable(one) or hasattr(one, "__dict__"):
                held += list(getattr(one, "__dict__", {}).values())
                held += [cell.cell_contents for cell in getattr(one, "__closure__", None) or ()]
        return total

    transcriber.push(noise(2.048))  # Whole hops.
    before = size()
    transcriber.push(noise(10.24))
    assert size() == before > 10_000


@pytest.mark.parametrize(
    "block",
    [np.zeros((2, 10)), np.array([0.1, np.nan]), np.array([np.inf]), np.array([1e18]), np.float32([20_000.0]), np.float32(0.5)],
    ids=["stereo", "nan", "inf", "no sound", "integers", "scalar"],
)
def test_what_is_no_sound_is_refused_and_nothing_is_lost(block):
    model, settings = eager()
    audio = noise(0.5)
    transcriber = streaming.StreamingTranscriber(state_stream.of_model(model, settings))
    events = transcriber.push(audio[:3000])
    with pytest.raises(DataError, match="a block of a stream"):
        transcriber.push(block)
    whole = stream(model, settings, audio, [len(audio)])
    assert whole and events + transcriber.push(audio[3000:]) + transcriber.finish() == whole


def test_a_stream_ends_once():
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny")
    transcriber = streaming.StreamingTranscriber(state_stream.of_model(models.build("AUTOREGRESSIVE", settings), settings))
    transcriber.finish()
    assert transcriber.finish() == []
    with pytest.raises(DataError, match="finished"):
        transcriber.push(np.zeros(10))


def test_boosts_make_more_or_fewer_notes(variant):
    model, settings = variant
    audio = noise(1.5)

    def onsets(boost):
        changed = hparams.merge(settings, {"onset_boost": boost})
        other = models.build("AUTOREGRESSIVE", changed)
        other.set_weights(model.get_weights())
        return len(transcribe.transcribe(other, lambda: [audio], changed))

    assert onsets(-20.0) == 0 < onsets(20.0)


def test_notes_of_a_pitch_do_not_overlap_whatever_the_timing():
    """Of random states, whose timing reaches beyond the next frame; live and of the whole alike."""
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny")
    rng = np.random.default_rng(3)
    drawn = rng.choice([states.OFF, states.SUSTAIN, states.ONSET, states.REONSET], (300, 88), p=[0.2, 0.4, 0.2, 0.2])
    timing, velocity = rng.uniform(-1.2, 1.2, (300, 88)), rng.uniform(0.1, 1.0, (300, 88))
    whole = states.to_notes(drawn, velocity, settings.frames_per_second, timing=timing)
    for pitch in range(21, 109):
        of_pitch = whole[whole.pitch == pitch]
        assert (of_pitch.onset[1:] >= of_pitch.offset[:-1]).all() and (of_pitch.offset > of_pitch.onset).all()
    transcriber = streaming.StreamingTranscriber(state_stream.of_model(models.build("AUTOREGRESSIVE", settings), settings))
    frames = [states.StateFrame(t, drawn[t], velocity[t], timing[t], velocity[t]) for t in range(300)]
    transcriber._stream = types.SimpleNamespace(push=lambda block: frames, finish=list, num_frames=300)
    live = streaming.to_notes(transcriber.push(np.zeros(1)) + transcriber.finish())
    assert len(live) == len(whole) > 5000
    for name in ("pitch", "onset", "offset"):
        np.testing.assert_allclose(getattr(live, name), getattr(whole, name), atol=1e-9)


def test_events_to_notes_by_hand():
    event = streaming.NoteEvent
    events = [
        event(0.1, 60, 80),
        event(0.2, 62, 70),
        event(0.5, 60, 0),
        event(0.5, 60, 90),
        event(0.9, 60, 0),
        event(1.0, 62, 0),
    ]
    notes = streaming.to_notes(events)
    assert notes.onset.tolist() == [0.1, 0.2, 0.5] and notes.offset.tolist() == [0.5, 1.0, 0.9]
    assert notes.pitch.tolist() == [60, 62, 60] and notes.velocity.tolist() == [80, 70, 90]
    assert not len(streaming.to_notes([]))


def test_the_network_is_read_by_its_layers():
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny")
    model = models.build("AUTOREGRESSIVE", settings)
    acoustic = autoregressive.network(model).get_layer("acoustic")
    step = live_layers.acoustic_step(state_stream.of_model(model, settings).weights, settings)
    spectrum = np.random.default_rng(0).random((12, 294)).astype(np.float32)
    # Silence before means zeros in every layer only where biases are zero, as they are where training starts.
    whole = keras.ops.convert_to_numpy(acoustic(spectrum[None]))[0]
    one_by_one = np.stack([step(frame) for frame in spectrum])
    np.testing.assert_allclose(one_by_one[1:], whole[:-1], atol=1e-5)  # The label shift of -1.
