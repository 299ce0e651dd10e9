"""Sends spans and log records with OpenTelemetry's SDK for Python, as an application would, and says on stdout what it sent.

    python send.py <grpc|proto> <endpoint> <none|gzip>
"""

import json
import logging
import sys

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

SPANS = 20
PATIENCE_MS = 20_000


def exporters(protocol, endpoint, compression):
    if protocol == "grpc":
        from grpc import Compression
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        how = {"none": Compression.NoCompression, "gzip": Compression.Gzip}[compression]
        to = {"endpoint": endpoint, "insecure": True, "compression": how}
        return OTLPSpanExporter(**to), OTLPLogExporter(**to)

    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    how = {"none": Compression.NoCompression, "gzip": Compression.Gzip}[compression]
    return (
        OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", compression=how),
        OTLPLogExporter(endpoint=f"{endpoint}/v1/logs", compression=how),
    )


def main(protocol, endpoint, compression):
    spans, logs = exporters(protocol, endpoint, compression)
    resource = Resource.create({"service.name": "python-client", "service.instance.id": "p-1"})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(spans))
    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(BatchLogRecordProcessor(logs))

    # Only the application's log goes out; the SDK's own stays on stderr.
    log = logging.getLogger("checkout")
    log.setLevel(logging.INFO)
    log.addHandler(LoggingHandler(logger_provider=loggers))
    log.propagate = False

    tracer = trace.get_tracer("conformance", tracer_provider=tracers)
    with tracer.start_as_current_span("checkout") as root:
        for i in range(1, SPANS):
            attributes = {"step": i, "share": i / SPANS, "even": i % 2 == 0, "tags": ["a", "ü"]}
            with tracer.start_as_current_span(f"step {i}", attributes=attributes) as span:
                log.info("step %d done", i, extra={"step": i})
                span.add_event("done", {"took_ms": i})
        root.record_exception(ValueError("card declined"))
        root.set_status(trace.StatusCode.ERROR, "card declined")
        trace_id = format(root.get_span_context().trace_id, "032x")

    flushed = tracers.force_flush(PATIENCE_MS) and loggers.force_flush(PATIENCE_MS)
    tracers.shutdown()
    loggers.shutdown()
    if not flushed:
        sys.exit("not everything was flushed in time")
    print(json.dumps({"trace_id": trace_id, "spans": SPANS, "logs": SPANS - 1}))


main(*sys.argv[1:])
