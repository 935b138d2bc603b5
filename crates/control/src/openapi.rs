//! The OpenAPI 3.1 document, made from the table of routes: what is served is what is
//! described, with the role each call needs, because both are the same rows.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::plan::Plan;
use crate::problem::ProblemDocument;
use crate::route::{Answers, Needs, Route};

const ABOUT: &str = "Everything the CLI and the web UI do. Within /v1 fields are only added and enums may grow. \
Documents stand in an envelope under `data`; errors are problem documents (RFC 9457) with a code that \
`/v1/codes/{code}` explains. A change with `dry_run=true` is checked and not made. A POST with an \
`Idempotency-Key` is done once.";

/// The document for these routes.
#[must_use]
pub fn document(routes: &[Route]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = operation(route, &mut generator);
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_lowercase()] = operation;
    }
    generator.subschema_for::<ProblemDocument>();
    generator.subschema_for::<Plan>();
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "vmhold",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.says,
        "parameters": parameters(route),
        "responses": {
            route.status.to_string(): answer(route, generator),
            "default": {
                "description": "It was not done; the code says why and what to do.",
                "content": {"application/problem+json": {"schema": reference("ProblemDocument")}},
            },
        },
    });
    match route.needs {
        Needs::Nothing => operation["security"] = json!([]),
        Needs::Role(role) => {
            operation["security"] = json!([{"token": []}]);
            operation["x-role"] = json!(role);
        }
    }
    if let Some(takes) = route.takes {
        let schema = takes(generator);
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if route.plans && route.status != 200 {
        operation["responses"]["200"] = json!({
            "description": "What would happen (dry_run).",
            "content": {"application/json": {"schema": envelope("vmhold.plan/v1", &reference("Plan"))}},
        });
    }
    operation
}

fn answer(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let (content_type, schema) = match route.answers {
        Answers::Other(content_type) => (content_type, json!({})),
        Answers::Document(name, schema_of) => {
            let schema = envelope(name, &schema_of(generator));
            let schema = if route.plans && route.status == 200 {
                json!({"anyOf": [schema, envelope("vmhold.plan/v1", &reference("Plan"))]})
            } else {
                schema
            };
            ("application/json", schema)
        }
    };
    json!({"description": route.says, "content": {content_type: {"schema": schema}}})
}

fn reference(name: &str) -> Schema {
    schemars::json_schema!({"$ref": format!("#/components/schemas/{name}")})
}

fn envelope(name: &str, data: &Schema) -> Value {
    json!({
        "type": "object",
        "required": ["schema", "generated_at", "data"],
        "properties": {
            "schema": {"const": name},
            "generated_at": {"type": "string", "format": "date-time"},
            "site": {"type": ["string", "null"]},
            "data_age_seconds": {"type": ["number", "null"]},
            "data": data,
        },
    })
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split(['{', '}']).skip(1).step_by(2).map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}),
    );
    let in_query = route.parameters.iter().map(|parameter| {
        let mut schema = json!({"type": parameter.kind});
        if parameter.kind == "integer" {
            schema["minimum"] = json!(0);
        }
        json!({"name": parameter.name, "in": "query", "schema": schema, "description": parameter.says})
    });
    let confirm = route.confirms.then(|| {
        json!({"name": "Confirm", "in": "header", "schema": {"type": "string"},
               "description": "Name of the object, as confirmation that it shall be destroyed; percent-encoded as in a path."})
    });
    in_path.chain(in_query).chain(confirm).collect()
}

/// `get_pools_name_map`: as stable as the path.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/v1");
    let words: Vec<&str> =
        path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    format!("{}_{}", route.method.as_str().to_lowercase(), words.join("_"))
}
