// Sends spans and log records with OpenTelemetry's SDK for Node, as an application would, and says on stdout what it sent.
//
//   node send.mjs <grpc|proto|json> <endpoint> <none|gzip>
import { SpanStatusCode, trace } from '@opentelemetry/api';
import { SeverityNumber } from '@opentelemetry/api-logs';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';

const SPANS = 20;
const [protocol, endpoint, compression] = process.argv.slice(2);

const kind = { grpc: 'grpc', proto: 'proto', json: 'http' }[protocol];
const { OTLPTraceExporter } = await import(`@opentelemetry/exporter-trace-otlp-${kind}`);
const { OTLPLogExporter } = await import(`@opentelemetry/exporter-logs-otlp-${kind}`);
const url = (path) => (protocol === 'grpc' ? endpoint : `${endpoint}${path}`);

// What an exporter is told, so that a refusal is not lost in a log that nobody reads.
const failures = [];
const watched = (exporter) => {
  const send = exporter.export.bind(exporter);
  exporter.export = (items, done) =>
    send(items, (result) => {
      if (result.code !== 0) failures.push(String(result.error));
      done(result);
    });
  return exporter;
};

const resource = resourceFromAttributes({ 'service.name': 'node-client', 'service.instance.id': 'n-1' });
const spans = watched(new OTLPTraceExporter({ url: url('/v1/traces'), compression }));
const logs = watched(new OTLPLogExporter({ url: url('/v1/logs'), compression }));
const tracers = new NodeTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(spans)] });
tracers.register();
const loggers = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter: logs })] });

const tracer = trace.getTracer('conformance');
const logger = loggers.getLogger('conformance');
let traceId;
tracer.startActiveSpan('checkout', (root) => {
  traceId = root.spanContext().traceId;
  for (let i = 1; i < SPANS; i += 1) {
    tracer.startActiveSpan(`step ${i}`, { attributes: { step: i, share: i / SPANS, even: i % 2 === 0, tags: ['a', 'ü'] } }, (span) => {
      logger.emit({ severityNumber: SeverityNumber.INFO, severityText: 'INFO', body: `step ${i} done`, attributes: { step: i } });
      span.addEvent('done', { took_ms: i });
      span.end();
    });
  }
  root.recordException(new Error('card declined'));
  root.setStatus({ code: SpanStatusCode.ERROR, message: 'card declined' });
  root.end();
});
await tracers.shutdown();
await loggers.shutdown();
if (failures.length > 0) {
  console.error(failures.join('\n'));
  process.exit(1);
}
console.log(JSON.stringify({ trace_id: traceId, spans: SPANS, logs: SPANS - 1 }));
