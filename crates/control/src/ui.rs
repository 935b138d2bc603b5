//! The web UI: plain files compiled into the binary, served as they are. No bundler, no
//! package, no request to anywhere else; the policy in the headers holds browsers to it.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::server::Api;

/// Scripts, styles and everything else only from here; nothing inline, nothing in frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the UI.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// What it is.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! asset {
    ($path:literal, $file:literal, $content_type:expr) => {
        Asset { path: $path, content_type: $content_type, bytes: include_bytes!(concat!("../ui/", $file)) }
    };
}

/// Every file there is.
pub const ASSETS: &[Asset] = &[
    asset!("/", "index.html", "text/html; charset=utf-8"),
    asset!("/ui/style.css", "style.css", STYLE),
    asset!("/ui/vendor/uplot-1.6.32.min.js", "vendor/uplot-1.6.32.min.js", SCRIPT),
    asset!("/ui/vendor/uplot-1.6.32.min.css", "vendor/uplot-1.6.32.min.css", STYLE),
    asset!("/ui/icon.svg", "icon.svg", "image/svg+xml"),
    asset!("/ui/main.js", "main.js", SCRIPT),
    asset!("/ui/api.js", "api.js", SCRIPT),
    asset!("/ui/dom.js", "dom.js", SCRIPT),
    asset!("/ui/format.js", "format.js", SCRIPT),
    asset!("/ui/chart.js", "chart.js", SCRIPT),
    asset!("/ui/live.js", "live.js", SCRIPT),
    asset!("/ui/dialog.js", "dialog.js", SCRIPT),
    asset!("/ui/watch.js", "watch.js", SCRIPT),
    asset!("/ui/pages/overview.js", "pages/overview.js", SCRIPT),
    asset!("/ui/pages/vms.js", "pages/vms.js", SCRIPT),
    asset!("/ui/pages/vm.js", "pages/vm.js", SCRIPT),
    asset!("/ui/pages/vm_changes.js", "pages/vm_changes.js", SCRIPT),
    asset!("/ui/pages/vm_parts.js", "pages/vm_parts.js", SCRIPT),
    asset!("/ui/pages/datastores.js", "pages/datastores.js", SCRIPT),
    asset!("/ui/pages/pool.js", "pages/pool.js", SCRIPT),
    asset!("/ui/pages/replication.js", "pages/replication.js", SCRIPT),
    asset!("/ui/pages/activity.js", "pages/activity.js", SCRIPT),
    asset!("/ui/pages/settings.js", "pages/settings.js", SCRIPT),
    asset!("/ui/pages/parts.js", "pages/parts.js", SCRIPT),
    asset!("/ui/pages/login.js", "pages/login.js", SCRIPT),
];

pub(crate) fn router() -> Router<Api> {
    ASSETS.iter().fold(Router::new(), |router, asset| router.route(asset.path, get(move || serve(asset))))
}

async fn serve(asset: &'static Asset) -> Response {
    let mut response = asset.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // A new version of the program is a new UI: browsers ask each time.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// U17: everything together is below the budget even without compression.
    #[test]
    fn the_first_load_is_small_and_asks_nobody_else() {
        let total: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(total < 300 << 10, "{total} bytes");
        for asset in ASSETS {
            let text = String::from_utf8_lossy(asset.bytes);
            let allowed = ["http://www.w3.org/", "https://github.com/leeoniya/uPlot"];
            let foreign = text.split("http").skip(1).map(|rest| format!("http{rest}")).find(|rest| {
                (rest.starts_with("http://") || rest.starts_with("https://"))
                    && !allowed.iter().any(|allowed| rest.starts_with(allowed))
            });
            assert_eq!(foreign.map(|rest| rest.chars().take(60).collect::<String>()), None, "{}", asset.path);
        }
    }

    /// The policy forbids what is inline, so nothing inline may be needed.
    #[test]
    fn pages_hold_no_inline_script_or_style() {
        for asset in ASSETS.iter().filter(|asset| asset.content_type.starts_with("text/html")) {
            let text = String::from_utf8_lossy(asset.bytes);
            assert!(!text.contains("<style") && !text.contains("style=\"") && !text.contains(" onclick"), "{text}");
            assert!(
                text.matches("<script").count()
                    == text.matches("<script src=").count() + text.matches("<script type=\"module\" src=").count()
            );
        }
    }
}
