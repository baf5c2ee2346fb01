"""Writes the shards of `polyamp.data.preparation` with Apache Beam: on its local runner, Flink, Spark, Dataflow and others."""

import contextlib
import io
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from polyamp.data import preparation
from polyamp.data.sharding import Shard
from polyamp.errors import PolyampError

NAMESPACE = "polyamp"


class WriteShard(beam.DoFn):
    """Writes a shard and counts what it holds."""

    def process(self, shard: Shard) -> Iterable[str]:
        outcome = preparation.write(shard)
        for name, value in outcome.counts.items():
            beam.metrics.Metrics.counter(NAMESPACE, name).inc(int(value))
        for failure in outcome.failures:
            beam.metrics.Metrics.counter(NAMESPACE, f"failed: {reason(failure)}").inc()
        beam.metrics.Metrics.counter(NAMESPACE, "shards").inc()
        yield shard.place


def reason(failure: dict[str, str]) -> str:
    """Why a recording failed, without its name: what failures are counted by."""
    return failure["error"].rpartition(": ")[2][:100]


def write(shards: Sequence[Shard], options: Sequence[str]) -> dict[str, int]:
    """Writes shards with as many workers as the runner has.

    Args:
        shards: What to write; workers read and write the same places.
        options: Beam's command line, such as `--runner=DirectRunner --direct_num_workers=2`.

    Returns:
        The counters of the job, as far as its runner knows them.
    """
    pipeline = make_pipeline(options)
    _ = pipeline | "Shards" >> beam.Create(list(shards)) | beam.Reshuffle() | "Write" >> beam.ParDo(WriteShard())
    result = pipeline.run()
    result.wait_until_finish()
    return counters(result)


def make_pipeline(options: Sequence[str]) -> beam.Pipeline:
    """An empty pipeline with the options of a command line.

    Raises:
        PolyampError: Beam does not understand them.
    """
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_interruption)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(["--default_sdk_harness_log_level=WARNING", *options])  # The last of two counts.
            parsed.view_as(SetupOptions).save_main_session = False  # All that workers need is in the package.
            parsed.get_all_options()  # Else mistakes would show later.
            return beam.Pipeline(options=parsed)
    except SystemExit as error:  # Of its argparse, whose last line says what is wrong.
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise PolyampError(f"Apache Beam: {reason}.") from error
    except (ValueError, ImportError) as error:
        raise PolyampError(f"Apache Beam: {str(error).splitlines()[0]}") from error


def _is_no_interruption(record: logging.LogRecord) -> bool:
    """Whether a message is about something else than Ctrl-C, of which Beam says pages."""
    return "KeyboardInterrupt" not in f"{record.getMessage()} {record.exc_info and record.exc_info[:2]}"


def counters(result: Any) -> dict[str, int]:
    """The counters of a job by name; none where its runner does not tell."""
    try:
        found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))["counters"]
    except NotImplementedError as error:
        logging.getLogger(__name__).debug("No counters: %s", error)
        return {}
    return {counter.key.metric.name: counter.result for counter in found}
