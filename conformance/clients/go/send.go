// Sends spans and log records with OpenTelemetry's SDK for Go, as an application would, and says on stdout what it sent.
//
//	send <grpc|proto> <endpoint> <none|gzip>
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	spans    = 20
	patience = 20 * time.Second
)

func exporters(ctx context.Context, protocol, endpoint string, gzip bool) (*otlptrace.Exporter, sdklog.Exporter, error) {
	if protocol == "grpc" {
		toTraces := []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(endpoint)}
		toLogs := []otlploggrpc.Option{otlploggrpc.WithEndpointURL(endpoint)}
		if gzip {
			toTraces = append(toTraces, otlptracegrpc.WithCompressor("gzip"))
			toLogs = append(toLogs, otlploggrpc.WithCompressor("gzip"))
		}
		traces, err := otlptracegrpc.New(ctx, toTraces...)
		if err != nil {
			return nil, nil, err
		}
		logs, err := otlploggrpc.New(ctx, toLogs...)
		return traces, logs, err
	}
	toTraces := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(endpoint + "/v1/traces")}
	toLogs := []otlploghttp.Option{otlploghttp.WithEndpointURL(endpoint + "/v1/logs")}
	if gzip {
		toTraces = append(toTraces, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		toLogs = append(toLogs, otlploghttp.WithCompression(otlploghttp.GzipCompression))
	}
	traces, err := otlptracehttp.New(ctx, toTraces...)
	if err != nil {
		return nil, nil, err
	}
	logs, err := otlploghttp.New(ctx, toLogs...)
	return traces, logs, err
}

func run(protocol, endpoint, compression string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	toTraces, toLogs, err := exporters(ctx, protocol, endpoint, compression == "gzip")
	if err != nil {
		return err
	}
	of := resource.NewSchemaless(attribute.String("service.name", "go-client"), attribute.String("service.instance.id", "g-1"))
	tracers := sdktrace.NewTracerProvider(sdktrace.WithResource(of), sdktrace.WithBatcher(toTraces))
	loggers := sdklog.NewLoggerProvider(sdklog.WithResource(of), sdklog.WithProcessor(sdklog.NewBatchProcessor(toLogs)))
	log := slog.New(otelslog.NewHandler("checkout", otelslog.WithLoggerProvider(loggers)))

	tracer := tracers.Tracer("conformance")
	within, root := tracer.Start(ctx, "checkout")
	for i := 1; i < spans; i++ {
		within, span := tracer.Start(within, fmt.Sprintf("step %d", i), trace.WithAttributes(
			attribute.Int("step", i),
			attribute.Float64("share", float64(i)/spans),
			attribute.Bool("even", i%2 == 0),
			attribute.StringSlice("tags", []string{"a", "ü"}),
		))
		log.InfoContext(within, fmt.Sprintf("step %d done", i), "step", i)
		span.AddEvent("done", trace.WithAttributes(attribute.Int("took_ms", i)))
		span.End()
	}
	root.RecordError(errors.New("card declined"))
	root.SetStatus(codes.Error, "card declined")
	root.End()

	if err := errors.Join(tracers.ForceFlush(ctx), loggers.ForceFlush(ctx), tracers.Shutdown(ctx), loggers.Shutdown(ctx)); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"trace_id": root.SpanContext().TraceID().String(),
		"spans":    spans,
		"logs":     spans - 1,
	})
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: send <grpc|proto> <endpoint> <none|gzip>")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
