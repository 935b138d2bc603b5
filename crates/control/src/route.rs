//! One row per call of the API: what it does, who may make it, what it takes and answers.
//!
//! The table (see [`crate::server::table`]) is the only place that says so. The router, the
//! check of roles, the check of dry runs and the OpenAPI document are all made from it, so
//! they cannot say different things. A call that is not in the table does not exist; a
//! change that does not say it can be planned is refused when it is asked to plan.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::access::Role;
use crate::envelope::Document;
use crate::server::Api;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Anyone: it says nothing about this store.
    Nothing,
    /// Someone with this role or a higher one.
    Role(Role),
}

/// A parameter behind `?`.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`.
    pub kind: &'static str,
    /// What it does.
    pub says: &'static str,
}

/// What a call answers.
#[derive(Clone, Copy)]
pub enum Answers {
    /// A document in its envelope: schema name and the schema of its data.
    Document(&'static str, fn(&mut SchemaGenerator) -> Schema),
    /// Something else, with this content type.
    Other(&'static str),
}

/// One row.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path, names in braces.
    pub path: &'static str,
    /// What it does, one sentence.
    pub says: &'static str,
    /// Who may.
    pub needs: Needs,
    /// Schema of the body it takes.
    pub takes: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// What it answers.
    pub answers: Answers,
    /// HTTP status when all is well.
    pub status: u16,
    /// Parameters behind `?`.
    pub parameters: Vec<Parameter>,
    /// Whether it understands `dry_run`.
    pub plans: bool,
    /// Whether the name of its object must be confirmed in the header `Confirm`.
    pub confirms: bool,
    /// Whether it is a long-lived stream.
    pub streams: bool,
    /// Whether its answer holds a secret, which is then kept nowhere.
    pub is_secret: bool,
    pub(crate) handler: MethodRouter<Api>,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const DRY_RUN: Parameter =
    Parameter { name: "dry_run", kind: "boolean", says: "Check and tell what would happen; change nothing." };

impl Route {
    fn new<H, T>(method: Method, path: &'static str, says: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a usual method");
        Self {
            method,
            path,
            says,
            needs: Needs::Role(Role::Admin),
            takes: None,
            answers: Answers::Other("application/json"),
            status: 200,
            parameters: Vec::new(),
            plans: false,
            confirms: false,
            streams: false,
            is_secret: false,
            handler: on(filter, handler),
        }
    }

    /// A question, for viewers.
    pub fn get<H, T>(path: &'static str, says: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        Self { needs: Needs::Role(Role::Viewer), ..Self::new(Method::GET, path, says, handler) }
    }

    /// A change, for admins unless [`Route::role`] says otherwise.
    pub fn post<H, T>(path: &'static str, says: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        Self::new(Method::POST, path, says, handler)
    }

    /// A deletion, for admins unless [`Route::role`] says otherwise.
    pub fn delete<H, T>(path: &'static str, says: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        Self::new(Method::DELETE, path, says, handler)
    }

    /// Who may.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.needs = Needs::Role(role);
        self
    }

    /// Anyone may.
    #[must_use]
    pub const fn open(mut self) -> Self {
        self.needs = Needs::Nothing;
        self
    }

    /// The body it takes.
    #[must_use]
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some(schema_of::<T>);
        self
    }

    /// The document it answers with.
    #[must_use]
    pub fn answers<T: Document + JsonSchema>(mut self) -> Self {
        self.answers = Answers::Document(T::SCHEMA, schema_of::<T>);
        self
    }

    /// The content type it answers with, if that is no document.
    #[must_use]
    pub const fn answers_other(mut self, content_type: &'static str) -> Self {
        self.answers = Answers::Other(content_type);
        self
    }

    /// It answers 201.
    #[must_use]
    pub const fn creates(mut self) -> Self {
        self.status = 201;
        self
    }

    /// A parameter behind `?`.
    #[must_use]
    pub fn parameter(mut self, name: &'static str, kind: &'static str, says: &'static str) -> Self {
        self.parameters.push(Parameter { name, kind, says });
        self
    }

    /// It understands `dry_run`.
    #[must_use]
    pub fn plans(mut self) -> Self {
        self.plans = true;
        self.parameters.push(DRY_RUN);
        self
    }

    /// The name of its object must be confirmed.
    #[must_use]
    pub const fn confirms(mut self) -> Self {
        self.confirms = true;
        self
    }

    /// Its answer holds a secret.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// It is a stream.
    #[must_use]
    pub const fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Whether it changes something.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.method != Method::GET
    }

    /// `GET /v1/status`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}
