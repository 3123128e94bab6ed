"""Sending spans to a collector by OTLP, as the settings say.

Imported only where tracing is configured, since it needs packages that nothing else does.

OpenTelemetry's SDK reads what its other variables say by itself: resource attributes, the sampler, batches, limits and
the exporter's certificates (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from aibridge.observe.otel import OpenTelemetry
from aibridge.server.settings import Tracing as TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_LONGEST_ATTRIBUTE = 32 << 10
"""Characters of an attribute, such as a prompt; collectors refuse messages of more than a few MiB."""

_TRACES = "/v1/traces"


class Tracing:
    """The gateway's tracer, and the thread that sends its spans."""

    def __init__(self, settings: TracingSettings) -> None:
        sampler = ParentBased(TraceIdRatioBased(settings.sample_ratio)) if settings.sample_ratio < 1 else None
        # An argument would win over the variables by which the SDK can be told of other limits.
        unlimited = not any(name.endswith("ATTRIBUTE_VALUE_LENGTH_LIMIT") for name in os.environ)
        self._provider = TracerProvider(
            sampler=sampler,
            resource=_resource(),
            span_limits=SpanLimits(max_span_attribute_length=_LONGEST_ATTRIBUTE) if unlimited else None,
        )
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(settings)))
        self.tracer = OpenTelemetry(self._provider.get_tracer("aibridge", version("aibridge")))

    def close(self) -> None:
        """Send what there still is; takes as long as the collector does, within the SDK's limits."""
        self._provider.shutdown()


def _exporter(settings: TracingSettings) -> SpanExporter:
    headers = {name.lower(): value.reveal() for name, value in settings.headers.items()}
    if settings.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoint=settings.endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    endpoint = settings.endpoint
    # What this variable says is taken as it is; all else names the place where traces have a path of their own.
    whole = endpoint == os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or endpoint.endswith(_TRACES)
    return Http(endpoint=endpoint if whole else endpoint.rstrip("/") + _TRACES, headers=headers)


def _resource() -> Resource:
    """What the spans are of; a name that the environment gives it wins."""
    resource = Resource.create({"service.version": version("aibridge")})
    named = not str(resource.attributes["service.name"]).startswith("unknown_service")
    return resource if named else resource.merge(Resource({"service.name": "aibridge"}))
