//! `vitadapt schema`: the JSON schema of the config file, for editors.

use crate::config::json_schema;
use crate::error::Result;
use crate::report::Console;

pub fn run(console: &Console) -> Result<()> {
    console.result(json_schema().trim_end())
}
