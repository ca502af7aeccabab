"""Every valid query of Tempo's documentation of TraceQL parses: these are its forms, in our own words where it has prose."""

from __future__ import annotations

import pytest

from collector.errors import InvalidQuery
from collector.query.traceql.parser import parse

QUERIES = """
{ }
{ span.http.status_code >= 200 && span.http.status_code < 300 } | count() > 2
{resource.service.name = "frontend" && name = "POST /api/orders"}
{ resource.service.namespace = "ecommerce" && resource.service.name = "frontend" && name = "POST /api/orders" }
{ resource.service.name="frontend" && name = "POST /api/orders" && status = error }
{span.service.name="frontend" && name = "GET /api/products/{id}"} && {span.db.system="postgresql"}
{ resource.deployment.environment = "production" } && { resource.deployment.environment = "staging" }
{ span.foo = "bar" }
{ span.foo != "bar" }
{ span.http.request.header.Accept =~ "application.*" }
{ span.http.request.header.Accept !~ "application.*" }
{ resource.service.name="frontend" } >> { status = error }
{ } !< { resource.service.name = "productcatalogservice" }
{ resource.service.name = "productcatalogservice" } ~ { resource.service.name="frontend" }
{ span:childCount = 0 }
{ resource.service.name = "frontend" && span:childCount = 0 }
{ span:childCount > 10 }
{ span.http.status_code = 200 } | select(resource.service.name)
{ span.http.method = "GET" && status = ok } && { span.http.method = "DELETE" && status != ok }
{ resource.deployment.environment =~ "prod-.*" && span.http.status_code = 200 }
{ trace:duration > 5s }
{ span:duration < 5ms } | count_over_time() by(resource.service.name) | topk(10)
{ resource.deployment.environment = "production" && trace:duration > 2s } | count() > 30
{ span:name = "foo" }
{ event:name = "foo" }
{ trace:id = "1234" }
{ link:traceID = "1234" }
{ link:spanID = "0000000000000001" }
{ link.foo = "bar" }
{ event.foo = "bar" }
{ span:status = ok }
{ span:statusMessage = "Forbidden" }
{ span:duration > 100ms }
{ span:kind = server }
{ span:id = "0000000000000001" }
{ span:parentID = "000000000000001" }
{ trace:rootName = "HTTP GET" }
{ trace:rootService = "gateway" }
{ event:timeSinceStart > 2ms}
{ instrumentation:name = "grpc" }
{ instrumentation:version = "1.0.0" }
{ resource.k8s.cluster.name="service-name" && trace:rootName !~ ".*perf.*"}
{ span.db.system =~ "postgresql|mysql" }
{ event.exception.message =~ ".*something went wrong.*" }
{ link.opentracing.ref_type = "child_of" }
{ instrumentation.language = "java" }
{ resource.service.name = "foo" } | rate() by (instrumentation:name)
({ status = error } | rate()) / ({ } | rate())
({ resource.service.name = "frontend" } | rate()) / ({ } | rate())
({ } | rate()) + ({ } | count_over_time()) | topk(5)
{ resource.service.name = "frontend" } | rate() by (status) with (spanonly_fetch=true)
({ } | rate()) / 2.5
({ } | rate()) - 5
({ } | rate()) * (-100)
100 + ({ } | rate())
100 * ({ status = error } | count_over_time()) / ({ } | count_over_time())
100 * ({ status = error } | rate()) / ({ } | rate()) > 5
({ } | avg_over_time(span.http.response.body.size)) / (1024 * 1024)
({ status = error } | rate() by (resource.service.name)) / ({ } | rate() by (resource.service.name))
({ } | rate() by (resource.service.name)) / ({ } | rate())
({ } | rate()) + ({ } | rate()) | topk(5) > 10
(({ } | rate() by (name) | topk(3)) + ({ } | rate()) | bottomk(2)) * 60 with (exemplars=true)
{ span."attribute name with space" = "value" }
{ span.attribute."attribute name with space" = "value" }
{ span.retry_count > -1 }
{ span.value != minInt && span.value != maxInt }
{ event:timeSinceStart > -5s }
{ span.value > 1.5 }
{ span.optional_field = nil }
{ span.required_field != nil }
{ span.cache.hit = true }
{ span.cache.hit || span.http.status_code = 500 }
{ span.http.status_code >= "400" }
{ resource.service.version = nil }
{ event.exception.message = nil }
{ resource.cloud.region = "us-east-1" } || { resource.cloud.region = "us-west-1" }
{ span.http.url = "/path/of/api" } >> { span.db.name = "db-shard-001" }
{ span.http.url = "/path/of/api" && status = error } &>> { status = error }
{ .a } > { .b }
{ .a } << { .b }
{ .a } < { .b }
{ .a } &<< { .b }
{ .a } &> { .b }
{ .a } &< { .b }
{ .a } &~ { .b }
{ .a } !>> { .b }
{ .a } !<< { .b }
{ .a } !> { .b }
{ .a } !~ { .b }
{ status = error } !< { status = error }
count() > 10
avg(duration) > 20ms
{ span.http.status_code = 200 } | count() > 3
{ } | sum(span.bytesProcessed) > 1000000000
{ } | max(duration) > 1s
{ } | min(duration) > 1s
{ status = error } | by(resource.service.name) | count() > 1
{ span.http.request_content_length > 10 * 1024 * 1024 }
{ status = error } | select(span.http.status_code, span.http.url)
{} with (most_recent=true)
{ span.foo = "bar" } >> { status = error } with (most_recent=true)
{ trace:duration > 5s && resource.service.name = "api" }
{ resource.service.name = "api" } | quantile_over_time(duration, 0.9) with(sample=true)
{} | rate()
{} | rate() by (resource.service.name) | topk(10)
{ } | rate() by(resource.service.name) | bottomk(5)
{} | rate() by (resource.service.name) > 10
{ status = error } | rate() by (resource.service.name, name)
{ resource.service.name = "foo" && status = error } | rate() by (span.http.route)
{ name = "GET /:endpoint" } | count_over_time() by (span.http.status_code)
{ name = "GET /:endpoint" } | min_over_time(duration) by (span.http.target)
{ name = "GET /:endpoint" } | max_over_time(span.http.response.size)
{ name = "GET /:endpoint" } | avg_over_time(duration) by (span.http.status_code)
{ } | sum_over_time(span.http.response.size)
{ name = "GET /:endpoint" } | quantile_over_time(duration, .99, .9, .5)
{ name = "GET /:endpoint" } | quantile_over_time(span.http.status_code, .99, .9, .5)
{ } | histogram_over_time(duration) by (span.foo)
{ resource.service.name="a" && span.http.path="/myapi" } | compare({status=error})
{ resource.service.name="a" } | compare({status=error}, 10, 1700000000000000000, 1700000100000000000)
{ resource.service.name="frontend" } | rate() with(sample=true)
{ status=error } | count_over_time() with(span_sample=0.1)
{ } | rate() by (resource.service.name) with(trace_sample=0.05)
{ span:name = "GET /:endpoint" } | quantile_over_time(duration, .99) by (span.http.target) with (exemplars=true)
{ nestedSetParent < 0 }
{ nestedSetParent < 0 } | select(nestedSetLeft, nestedSetRight, nestedSetParent)
{ parent.span.a = 1 && parent.resource.b = "x" && parent.c != nil }
{ traceDuration > 1s && rootName = "a" && rootServiceName = "b" && statusMessage = "c" && childCount = 0 }
""".strip().splitlines()


@pytest.mark.parametrize("query", QUERIES)
def test_documented_queries_parse(query: str) -> None:
    tree = parse(query)
    assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    ("query", "column", "message"),
    [
        ("{ http.status_code = 500 }", 3, "unknown name 'http'; an attribute is written .http"),
        ("{ } | count() by (resource.service.name)", 15, "expected a comparison behind an aggregate"),
        ("({ } | count()) > 3", 8, "an aggregate of a whole pipeline"),
        ("{ } | topk(3)", 7, "topk() chooses among series"),
        ("{ } | rate() | count() > 1", 16, "a stage on spansets cannot stand behind a metrics function"),
        ("{ } | rate() | rate()", 16, "rate() works on spans, and here are series already"),
        ("({ } | rate()) && { }", 16, "expected the end of the query"),
        ("{ } >> ({ } | rate())", 1, "expected a value"),
        ("{ } | rate() / 2", 14, "series are combined in parentheses"),
        ("{ } | rate() + { } | rate()", 14, "series are combined in parentheses"),
        ("({ } | rate()) * 10s", 18, "series are combined with series and numbers, not duration"),
        ("({ } | rate()) * -true", 18, "wants a number"),
        ("({ } | rate()) + ({ })", 19, "expected a value"),
        ("({ } | rate()) / (1 / 0)", 21, "a number is divided by 0"),
        ("({ } | rate()) + ({ } | compare({ .a }))", 25, "series of compare() cannot be combined"),
        ("(({ } | rate()) > 2 | count() > 1) * 2", 23, "a stage on spansets cannot stand behind"),
        ("({ } | rate()) % 2", 16, "expected the end of the query"),
        ("count() > ({ } | count())", 12, "expected a value"),
        ("{ } | rate(duration)", 7, "rate() takes nothing"),
        ("{ } | min_over_time()", 7, "wants a number of each span"),
        ("{ } | sum_over_time(name)", 7, "wants a number of each span"),
        ("{ } | quantile_over_time(duration)", 7, "wants 1 to 20 quantiles"),
        ("{ } | quantile_over_time(duration, 99)", 36, "a quantile is a number from 0 to 1"),
        ("{ } | rate() | topk(0)", 16, "wants a number of series from 1"),
        ("{ } | compare(duration)", 7, "compare() wants a filter first"),
        ("{ } | compare({ }, 5, 7)", 7, "start and end, both or neither"),
        ('{ } | rate() > "x"', 16, "series are compared with a number, not string"),
        ("{ } with (speed=true)", 11, "there is no hint 'speed'"),
        (
            "{ } | rate() with (extrapolate=true)",
            20,
            "the hint extrapolate, counting spans by their sampling probability, is",
        ),
        ("{ } with (most_recent=1s)", 23, "the hint most_recent wants bool"),
        ("{ event.a = link.b }", 11, "an event and a link of a span do not belong together"),
    ],
)
def test_what_can_never_run_is_refused_where_it_stands(query: str, column: int, message: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse(query)
    assert message in str(caught.value)
    assert caught.value.position == column - 1
