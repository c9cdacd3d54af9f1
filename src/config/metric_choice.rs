//! What settings and epochs are compared by: `probe.metric`, `early_stop.metric`.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Spellings that mean the same as a name: those that say which images the metric is of.
const ALSO: [(&str, &str); 2] = [("val_accuracy", "accuracy"), ("val_loss", "log_loss")];

/// A metric of the validation images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = add_spellings)]
pub enum MetricChoice {
    /// Accuracy, or balanced accuracy where one class has more than one and a half times the training images of another.
    Auto,
    /// The share of right answers.
    #[serde(alias = "val_accuracy")]
    Accuracy,
    /// The mean recall of the classes.
    BalancedAccuracy,
    /// The mean F1 of the classes.
    MacroF1,
    /// The mean area under the ROC curves of each class against the rest.
    Auroc,
    /// The mean average precision of each class against the rest.
    AveragePrecision,
    /// The cross-entropy; lower is better.
    #[serde(alias = "val_loss")]
    LogLoss,
}

fn add_spellings(schema: &mut Schema) {
    if let Some(Value::Array(values)) = schema.get_mut("oneOf") {
        let also = |(spelling, name)| json!({"const": spelling, "description": format!("The same as `{name}`.")});
        values.extend(ALSO.map(also));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_schema_is_read() {
        let schema = schemars::schema_for!(MetricChoice);
        let values: Vec<&Value> =
            schema.get("oneOf").unwrap().as_array().unwrap().iter().map(|v| &v["const"]).collect();
        assert_eq!(values.len(), 9);
        let read = |value: &Value| serde_json::from_value::<MetricChoice>(value.clone()).unwrap();
        assert!(values.iter().all(|value| MetricChoice::deserialize(*value).is_ok()));
        for (spelling, name) in ALSO {
            assert_eq!(read(&spelling.into()), read(&name.into()));
        }
    }
}
