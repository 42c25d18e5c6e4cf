//! Errors as the contract writes them: `{"error":{"code","message","hint"}}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

/// An error as the caller sees it.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl ApiError {
    /// What stands under `error`.
    pub(super) fn as_json(&self) -> serde_json::Value {
        serde_json::json!({"code": self.code, "message": self.message, "hint": self.hint})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": self.as_json()});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert("www-authenticate", http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The answer to a method that the path does not have.
pub(super) async fn wrong_method() -> ApiError {
    ApiError {
        status: StatusCode::METHOD_NOT_ALLOWED,
        code: "method_not_allowed",
        message: String::from("this path does not have this method"),
        hint: "check the method against the README",
    }
}

/// The answer to a request that took too long to arrive, or to be done.
pub(super) fn too_slow() -> ApiError {
    ApiError {
        status: StatusCode::REQUEST_TIMEOUT,
        code: "timeout",
        message: String::from("the request took too long"),
        hint: "send less in one request; events that were taken in already are delivered twice at worst, never lost",
    }
}

/// The answer to a path that does not exist.
pub(super) async fn not_found() -> ApiError {
    ApiError {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        message: String::from("there is nothing at this path"),
        hint: "check the path against the README",
    }
}
