//! Refusals, as programs and people read them: a code, and a message in both languages.

use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use carebed_alerts::refused::Refused;
use carebed_contract::text::Text;
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

use super::BODY_MAX;
use crate::database::DatabaseError;
use crate::desk::RequestError;
use crate::registry::TIME_ZONE;

/// A request that was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: Text,
    details: Map<String, Value>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: Text) -> Self {
        Self { status, code, message, details: Map::new() }
    }

    pub(crate) fn bad_request(code: &'static str, message: Text) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// What the desk would not do; times in the home's zone.
    pub(crate) fn of(error: &RequestError, zone: Tz) -> Self {
        let RequestError::Refused(refused) = error else {
            let message = Text::new("服务正在停止，请稍后重试。", "The service is stopping; try again later.");
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message);
        };
        let status = match refused {
            Refused::Unknown(_) => StatusCode::NOT_FOUND,
            Refused::Already { .. } | Refused::TooEarly { .. } => StatusCode::CONFLICT,
            Refused::NoteTooLong | Refused::NotAChoice => StatusCode::BAD_REQUEST,
        };
        let mut failure = Self::new(status, refused.code(), refused.text(zone));
        if let Refused::Already { state, by, at } = refused {
            failure.details.insert("state".to_owned(), json!(state));
            failure.details.insert("by".to_owned(), json!(by));
            failure.details.insert("at".to_owned(), json!(at));
        }
        failure
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::of(&error, TIME_ZONE)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
        let message = Text::new(
            "数据库暂时无法读取，请联系运维人员检查磁盘。",
            "The database cannot be read now; ask the maintainers to check the disk.",
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "database", message)
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        let wrong = rejection.body_text();
        let message =
            Text::new(format!("地址中的参数有误：{wrong}。"), format!("The address has a wrong parameter: {wrong}."));
        Self::bad_request("bad_parameter", message)
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        let message = Text::new(
            format!("请求内容未能完整接收（上限 {BODY_MAX} 字节）。"),
            format!("The request could not be read (at most {BODY_MAX} bytes)."),
        );
        Self::new(rejection.status(), "unreadable_body", message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = self.details;
        error.insert("code".to_owned(), json!(self.code));
        error.insert("message".to_owned(), json!(self.message));
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}

pub(super) async fn no_such_page() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "not_found", Text::new("没有这个地址。", "There is nothing at this address."))
}

pub(super) async fn no_such_method() -> Failure {
    let message = Text::new("该地址不支持这种请求方法。", "This address does not take this method.");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
