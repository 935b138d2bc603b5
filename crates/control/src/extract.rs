//! Parts of a request, with our own words when they make no sense.

use std::borrow::Cow;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::codes;
use crate::problem::Problem;
use crate::server::Refusal;

/// Bodies are small documents.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// Of a longer body this much is read for the sake of the answer.
const BODY_BYTES_DROPPED_MAX: usize = 16 << 20;

/// The query, as `T`.
pub(crate) struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Query(asked) = Query::try_from_uri(&parts.uri).map_err(|why| {
            Problem::new(&codes::BAD_INPUT, "the part behind `?` makes no sense").why(why.body_text())
        })?;
        Ok(Self(asked))
    }
}

/// The name in the path.
pub(crate) struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(|why| {
            Problem::new(&codes::BAD_INPUT, "the name in the path makes no sense").why(why.body_text())
        })?;
        Ok(Self(name))
    }
}

/// Two names in the path.
pub(crate) struct Parts2(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Parts2 {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path((one, two)) = names(Path::from_request_parts(parts, state).await)?;
        Ok(Self(one, two))
    }
}

/// Three names in the path.
pub(crate) struct Parts3(pub String, pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Parts3 {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path((one, two, three)) = names(Path::from_request_parts(parts, state).await)?;
        Ok(Self(one, two, three))
    }
}

fn names<T>(read: Result<Path<T>, PathRejection>) -> Result<Path<T>, Refusal> {
    read.map_err(|why| {
        Problem::new(&codes::BAD_INPUT, "the names in the path make no sense").why(why.body_text()).into()
    })
}

/// The body, as `T`.
pub(crate) struct Sent<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let bytes = whole(request.into_body()).await?;
        let sent = serde_json::from_slice(&bytes).map_err(|why| {
            Problem::new(&codes::BAD_INPUT, "the body is not the JSON this call takes")
                .why(why.to_string())
                .step("see what it takes: GET /v1/openapi.json")
        })?;
        Ok(Self(sent))
    }
}

/// A whole body. What is too long is read on for a while and dropped: a connection closed
/// on a sender in mid-body would take the answer with it.
pub(crate) async fn whole(body: Body) -> Result<Vec<u8>, Problem> {
    let unusable = |why: String| Problem::new(&codes::BAD_INPUT, "the body is too long or broken off").why(why);
    let (mut pieces, mut whole, mut read_bytes) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|why| unusable(why.to_string()))?;
        read_bytes += piece.len();
        if read_bytes <= BODY_BYTES_MAX {
            whole.extend_from_slice(&piece);
        } else if read_bytes > BODY_BYTES_DROPPED_MAX {
            break;
        }
    }
    if read_bytes <= BODY_BYTES_MAX { Ok(whole) } else { Err(unusable(format!("at most {BODY_BYTES_MAX} bytes"))) }
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A cookie's value.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all("cookie").into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// One parameter behind `?`, of a request whose other parameters are none of our business.
pub(crate) fn parameter<T: FromStr>(uri: &Uri, name: &str) -> Result<Option<T>, Problem> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value);
    let wrong = |value: &str| Problem::new(&codes::BAD_INPUT, format!("{name}={value} makes no sense"));
    value.map(|value| value.parse().map_err(|_| wrong(value))).transpose()
}

/// The name in the header `Confirm`. Headers are ASCII, names need not be: it is written as in a path.
pub(crate) fn confirmation(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    header(headers, "confirm").map(|name| percent_decode_str(name).decode_utf8_lossy())
}

/// Refuses a severe step unless the name of what it is about was given as confirmation.
pub(crate) fn confirmed(headers: &HeaderMap, name: &str, effect: &str) -> Result<(), Problem> {
    match confirmation(headers) {
        Some(given) if given == name => Ok(()),
        Some(other) => {
            Err(Problem::new(&codes::CONFIRMATION_MISSING, format!("{other:?} was confirmed, not {name:?}")))
        }
        None => Err(Problem::new(&codes::CONFIRMATION_MISSING, format!("{name:?} is not confirmed")).why(effect)),
    }
}
