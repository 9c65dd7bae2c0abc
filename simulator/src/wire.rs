//! AWS JSON 1.1: errors, and reading members of a request as the model demands.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// An error as AWS answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsError {
    pub(crate) status: StatusCode,
    pub(crate) name: String,
    pub(crate) message: String,
}

impl AwsError {
    /// A client error.
    pub(crate) fn new(name: &str, message: impl Into<String>) -> Self {
        let status = match name {
            "InternalServiceErrorException" => StatusCode::INTERNAL_SERVER_ERROR,
            "RequestEntityTooLargeException" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            name: name.to_owned(),
            message: message.into(),
        }
    }

    /// A member that breaks the model's constraints.
    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(crate) fn to_response(&self) -> Response<Bytes> {
        let body = json!({
            "__type": format!("com.amazonaws.marketplacemetering#{}", self.name),
            "message": self.message,
        });
        let mut response = json_response(self.status, &body);
        if let Ok(name) = self.name.parse() {
            response.headers_mut().insert("x-amzn-errortype", name);
        }
        response
    }
}

/// A JSON answer in the content type of the protocol.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/x-amz-json-1.1"),
    );
    response
}

/// The request's members; a member that the model does not know is refused.
pub(crate) fn members(body: &[u8], known: &[&str]) -> Result<Map<String, Value>, AwsError> {
    let malformed = || AwsError::new("SerializationException", "the body is not a JSON object");
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err(malformed());
    };
    only_known(&members, known)?;
    Ok(members)
}

/// Refuses a member that the model does not know.
pub(crate) fn only_known(members: &Map<String, Value>, known: &[&str]) -> Result<(), AwsError> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(AwsError::validation(format!(
            "there is no member {unknown:?}"
        ))),
        None => Ok(()),
    }
}

/// A text member; `None` where it is absent or null.
pub(crate) fn text<'a>(
    members: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, AwsError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AwsError::new(
            "SerializationException",
            format!("{name} is not a string"),
        )),
    }
}

/// A whole number; `None` where it is absent or null.
pub(crate) fn integer(members: &Map<String, Value>, name: &str) -> Result<Option<i64>, AwsError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| {
            AwsError::new(
                "SerializationException",
                format!("{name} is not a whole number"),
            )
        }),
    }
}

/// A member that has to be there.
pub(crate) fn required<T>(value: Option<T>, name: &str) -> Result<T, AwsError> {
    value.ok_or_else(|| AwsError::validation(format!("{name} is required")))
}
