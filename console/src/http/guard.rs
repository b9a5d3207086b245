//! Keeps other people's web pages out. The console has no login yet, so a page in the operator's own browser must not
//! reach it: neither by a foreign name that resolves to this machine (DNS rebinding) nor by a forged form.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use carebed_contract::text::Text;

use super::answer::Failure;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Lets a request through, or says why not.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = match check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn check(method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        let message = Text::new(
            "请使用 http://localhost 或 http://127.0.0.1 访问本页面。",
            "Open this page as http://localhost or http://127.0.0.1.",
        );
        return Err(Failure::new(StatusCode::FORBIDDEN, "foreign_host", message));
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let from = text(header::ORIGIN);
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let is_own_origin = from.is_none_or(|from| from.strip_prefix("http://") == Some(host));
    let is_own_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    if !is_own_origin || !is_own_site {
        let message = Text::new("已拒绝来自其他网站的操作。", "An action from another web site was refused.");
        return Err(Failure::new(StatusCode::FORBIDDEN, "foreign_origin", message));
    }
    let content = text(header::CONTENT_TYPE).unwrap_or_default();
    let media_type = content.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let message = Text::new(
            "请求须为 JSON（Content-Type: application/json）。",
            "The request must be JSON (Content-Type: application/json).",
        );
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
    }
    Ok(())
}

/// `localhost`, `127.x.x.x` or `[::1]`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        for good in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:80", "127.0.0.1", "[::1]:9", "[::1]"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in ["", "evil.example", "localhost.evil.example:80", "192.168.1.2", "127.0.0.1.evil.example", "[::2]"] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn changing_requests_are_json_from_our_own_page() {
        let verdict = |method: Method, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            map.insert("host", HeaderValue::from_static("localhost:7"));
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            check(&method, &map).is_ok()
        };
        let json = ("content-type", "application/json; charset=utf-8");
        assert!(verdict(Method::GET, &[]));
        assert!(verdict(Method::POST, &[json]));
        assert!(verdict(Method::POST, &[json, ("origin", "http://localhost:7"), ("sec-fetch-site", "same-origin")]));
        assert!(!verdict(Method::POST, &[]));
        assert!(!verdict(Method::POST, &[("content-type", "text/plain")]));
        assert!(!verdict(Method::POST, &[json, ("origin", "http://evil.example")]));
        assert!(!verdict(Method::POST, &[json, ("origin", "http://localhost:8")]));
        assert!(!verdict(Method::POST, &[json, ("origin", "null")]));
        assert!(!verdict(Method::POST, &[json, ("sec-fetch-site", "cross-site")]));
        assert!(!verdict(Method::GET, &[("host", "evil.example")]));
    }
}
