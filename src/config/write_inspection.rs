//! `[inspection]` and `[unknown]` written back.

use super::inspection_settings::{BandGoal, InspectionSettings, UnknownSettings};
use super::raw::{ClassName, OneOrMany};
use super::raw_inspection::{RawCosts, RawInspection, RawUnknown};

pub(super) fn inspection(inspection: &InspectionSettings) -> RawInspection {
    let (costs, limits) = match inspection.band {
        None => (None, None),
        Some(BandGoal::Costs(costs)) => (Some(costs), None),
        Some(BandGoal::Limits(limits)) => (None, Some(limits)),
    };
    let good = &inspection.good;
    RawInspection {
        good: (!good.is_empty()).then(|| OneOrMany::Many(good.iter().cloned().map(ClassName).collect())),
        prevalence: inspection.prevalence,
        costs: costs.map(|costs| RawCosts {
            escape: Some(costs.escape),
            overkill: Some(costs.overkill),
            look: Some(costs.look),
        }),
        max_escape: limits.map(|limits| limits.max_escape),
        max_overkill: limits.map(|limits| limits.max_overkill),
    }
}

pub(super) fn unknown(unknown: UnknownSettings) -> RawUnknown {
    RawUnknown { k: Some(unknown.k), quantile: Some(unknown.quantile) }
}
