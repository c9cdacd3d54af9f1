//! `[inspection]` and `[unknown]`: what may stand beside what.

use super::Resolver;
use crate::config::inspection_settings::{BandGoal, Costs, InspectionSettings, Limits, UnknownSettings};
use crate::config::raw::ClassName;
use crate::config::raw_inspection::{RawCosts, RawInspection, RawUnknown};

const GOOD: &str = "inspection.good";
const COSTS: &str = "inspection.costs";
const MAX_ESCAPE: &str = "inspection.max_escape";
const MAX_OVERKILL: &str = "inspection.max_overkill";

impl Resolver<'_> {
    pub(super) fn inspection(&mut self, raw: RawInspection) -> InspectionSettings {
        let mut good: Vec<String> =
            raw.good.map_or_else(Vec::new, |good| good.into_vec().into_iter().map(|ClassName(name)| name).collect());
        good.sort_unstable();
        good.dedup();
        let other =
            raw.prevalence.is_some() || raw.costs.is_some() || raw.max_escape.is_some() || raw.max_overkill.is_some();
        if good.is_empty() && other {
            self.missing(GOOD, &[], "name the class of sound parts; every other class is a defect");
        }
        let (costs, max_escape) = self.either((COSTS, raw.costs), (MAX_ESCAPE, raw.max_escape));
        let (costs, max_overkill) = self.either((COSTS, costs), (MAX_OVERKILL, raw.max_overkill));
        let limits = max_escape.or(max_overkill).map(|_| {
            BandGoal::Limits(Limits {
                max_escape: max_escape.unwrap_or(0.0),
                max_overkill: max_overkill.unwrap_or(0.0),
            })
        });
        let band = costs.map(|costs| BandGoal::Costs(self.costs(&costs))).or(limits);
        InspectionSettings { good, prevalence: raw.prevalence, band }
    }

    fn costs(&mut self, raw: &RawCosts) -> Costs {
        let mut cost = |name: &str, given: Option<f64>| {
            given.unwrap_or_else(|| {
                self.missing(
                    &format!("{COSTS}.{name}"),
                    &[],
                    "escape, overkill and look are weighed against each other",
                );
                0.0
            })
        };
        Costs {
            escape: cost("escape", raw.escape),
            overkill: cost("overkill", raw.overkill),
            look: cost("look", raw.look),
        }
    }
}

/// With k = 5 one odd training image makes nothing known that is like it alone, and five images a class suffice.
pub(super) fn unknown(raw: &RawUnknown) -> UnknownSettings {
    UnknownSettings { k: raw.k.unwrap_or(5), quantile: raw.quantile.unwrap_or(0.99) }
}
