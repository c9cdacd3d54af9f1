//! The environment variables of `huggingface_hub`, with the same defaults.
//!
//! Reference: `constants.py` and `utils/_auth.py` of `huggingface_hub` 2.4.

use crate::error::HubError;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A secret that cannot be printed by accident.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    /// The value of the `Authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The settings found.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// Server, without a slash at the end.
    pub endpoint: String,
    /// Folder of the cache.
    pub cache: PathBuf,
    /// Sent to the endpoint, and to no other host.
    pub token: Option<Token>,
    /// Never connect.
    pub offline: bool,
    /// How long the answer to a lookup may take.
    pub etag_timeout: Duration,
    /// How long a download may stall.
    pub download_timeout: Duration,
    /// Certificates to trust instead of Mozilla's.
    pub certificates: Option<PathBuf>,
}

impl Environment {
    /// Reads the variables through `get`.
    ///
    /// # Errors
    /// [`HubError::Environment`] names a variable that cannot be used, [`HubError::Cache`] a token file.
    pub(super) fn read(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let reader = EnvironmentReader { get };
        Ok(Self {
            endpoint: reader.endpoint()?,
            cache: reader.cache()?,
            token: reader.token()?,
            offline: reader.flag("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
            etag_timeout: reader.seconds("HF_HUB_ETAG_TIMEOUT")?,
            download_timeout: reader.seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
            certificates: reader.path("SSL_CERT_FILE"),
        })
    }
}

struct EnvironmentReader<'a> {
    get: &'a dyn Fn(&str) -> Option<OsString>,
}

impl EnvironmentReader<'_> {
    /// A variable that is set and not empty.
    fn value(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, HubError> {
        let not_text = |_| HubError::Environment { variable: name, reason: "is not valid UTF-8".into() };
        self.value(name).map(|value| value.into_string().map_err(not_text)).transpose()
    }

    /// A path, with `~` at its start expanded.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.value(name)?);
        Some(match (path.strip_prefix("~"), self.user_home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        })
    }

    fn user_home(&self) -> Option<PathBuf> {
        self.value("HOME").or_else(|| self.value("USERPROFILE")).map(PathBuf::from)
    }

    /// `HF_HOME`, else `huggingface` in the user's cache folder.
    fn hub_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME").or_else(|| {
            let caches = self.path("XDG_CACHE_HOME").or_else(|| Some(self.user_home()?.join(".cache")));
            Some(caches?.join("huggingface"))
        })
    }

    fn cache(&self) -> Result<PathBuf, HubError> {
        let named = self.path("HF_HUB_CACHE").or_else(|| self.path("HUGGINGFACE_HUB_CACHE"));
        named.or_else(|| Some(self.hub_home()?.join("hub"))).ok_or_else(|| HubError::Environment {
            variable: "HF_HOME",
            reason: "must name a folder for downloaded models, since there is no HOME either".into(),
        })
    }

    fn endpoint(&self) -> Result<String, HubError> {
        let endpoint = self.text("HF_ENDPOINT")?.unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        let endpoint = endpoint.trim_end_matches('/');
        let refuse = |reason: &str| HubError::Environment { variable: "HF_ENDPOINT", reason: reason.into() };
        let address = endpoint.parse::<ureq::http::Uri>().map_err(|_| refuse("is not a valid address"))?;
        if !matches!(address.scheme_str(), Some("http" | "https")) || address.host().is_none_or(str::is_empty) {
            return Err(refuse("must begin with https:// or http:// and a host"));
        }
        // They would appear wherever an address is shown.
        if address.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refuse("must not hold a user name or password; set HF_TOKEN instead"));
        }
        if address.query().is_some() {
            return Err(refuse("must not hold a query"));
        }
        Ok(endpoint.to_owned())
    }

    fn token(&self) -> Result<Option<Token>, HubError> {
        if self.flag("HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            if let Some(token) = self.text(variable)? {
                return clean(&token, variable);
            }
        }
        let file = self.path("HF_TOKEN_PATH").or_else(|| Some(self.hub_home()?.join("token")));
        let Some(file) = file else { return Ok(None) };
        match std::fs::read_to_string(&file) {
            Ok(token) => clean(&token, "HF_TOKEN_PATH"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HubError::cache("read the token", file)(error)),
        }
    }

    /// Whether the first of two variables that is set is true.
    fn flag(&self, first: &str, second: &str) -> bool {
        let value = self.value(first).or_else(|| self.value(second)).unwrap_or_default();
        ["1", "on", "yes", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
    }

    fn seconds(&self, variable: &'static str) -> Result<Duration, HubError> {
        const MOST: u64 = 24 * 60 * 60;
        let Some(text) = self.text(variable)? else { return Ok(DEFAULT_TIMEOUT) };
        match text.trim().parse() {
            Ok(0) => Ok(DEFAULT_TIMEOUT),
            Ok(seconds @ 1..=MOST) => Ok(Duration::from_secs(seconds)),
            _ => Err(HubError::Environment { variable, reason: format!("must be whole seconds from 1 to {MOST}") }),
        }
    }
}

/// Drops white space around a token; an empty one is none.
fn clean(text: &str, variable: &'static str) -> Result<Option<Token>, HubError> {
    let token = text.trim();
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let reason = "holds characters that no token has".into();
        return Err(HubError::Environment { variable, reason });
    }
    Ok((!token.is_empty()).then(|| Token(token.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, HubError> {
        Environment::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_found_as_huggingface_hub_finds_it() {
        for (variables, expected) in [
            (&[("HOME", "/u")][..], "/u/.cache/huggingface/hub"),
            (&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/h")], "/u/h/hub"),
            (&[("HOME", "/u"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/old"),
            (&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/c"),
            (&[("HOME", "/u"), ("HF_HOME", "")], "/u/.cache/huggingface/hub"),
        ] {
            assert_eq!(read(variables).unwrap().cache, Path::new(expected), "{variables:?}");
        }
        assert!(read(&[]).is_err());
    }

    #[test]
    fn tokens_come_from_variables_or_the_file_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert!(read(&[("HF_HOME", home)]).unwrap().token.is_none());
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let header = |variables: &[(&str, &str)]| read(variables).unwrap().token.map(|token| token.header());
        assert_eq!(header(&[("HF_HOME", home)]).unwrap(), "Bearer hf_file");
        assert_eq!(header(&[("HF_HOME", home), ("HF_TOKEN", " hf_env ")]).unwrap(), "Bearer hf_env");
        assert_eq!(header(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let shown = format!("{:?}", read(&[("HF_HOME", home)]).unwrap());
        assert!(!shown.contains("hf_file"), "{shown}");
        let error = read(&[("HF_HOME", home), ("HF_TOKEN", "hf_se cret")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("cret"));
    }

    #[test]
    fn flags_and_timeouts() {
        let environment = |name, value| read(&[("HOME", "/u"), (name, value)]);
        for (value, expected) in [("1", true), ("on", true), ("YES", true), ("True", true), ("0", false), ("x", false)]
        {
            assert_eq!(environment("HF_HUB_OFFLINE", value).unwrap().offline, expected);
            assert_eq!(environment("TRANSFORMERS_OFFLINE", value).unwrap().offline, expected);
        }
        assert!(!read(&[("HOME", "/"), ("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
        assert_eq!(environment("HF_HUB_ETAG_TIMEOUT", "3").unwrap().etag_timeout, Duration::from_secs(3));
        assert_eq!(environment("HF_HUB_DOWNLOAD_TIMEOUT", "0").unwrap().download_timeout, DEFAULT_TIMEOUT);
        assert!(environment("HF_HUB_DOWNLOAD_TIMEOUT", "soon").is_err());
    }

    #[test]
    fn endpoints_are_addresses_of_servers() {
        let endpoint = |value| read(&[("HOME", "/u"), ("HF_ENDPOINT", value)]).map(|environment| environment.endpoint);
        assert_eq!(endpoint("https://mirror.example/hub//").unwrap(), "https://mirror.example/hub");
        assert_eq!(endpoint("").unwrap(), DEFAULT_ENDPOINT);
        for bad in ["mirror", "ftp://mirror", "https://", "https://u:p@mirror", "https://mirror?x=1", "https://a b"] {
            let error = endpoint(bad).unwrap_err();
            assert!(matches!(error, HubError::Environment { variable: "HF_ENDPOINT", .. }), "{bad}");
        }
    }
}
