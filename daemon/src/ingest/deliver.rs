//! Imports a delivery, or keeps it until a person decides.

use super::{
    held::Deliveries,
    import::Importer,
    report::ImportReport,
    words::{ImportError, ImportRequest, Outcome, Progress},
};

/// Imports a file, or keeps it until somebody decides; the report then has its
/// id in `held`, and nothing was changed. Blocks.
///
/// A full file that goes in makes held ones of its dataset, that were there
/// before it was read, untrue: they are forgotten, the approved one among them.
pub fn import_or_hold(
    importer: &Importer,
    deliveries: &Deliveries,
    request: &ImportRequest,
    progress: &dyn Fn(Progress),
) -> Result<ImportReport, ImportError> {
    let waiting = if request.full { deliveries.waiting(&request.dataset)? } else { Vec::new() };
    let settle = || {
        for id in &waiting {
            // The import is done and durable; the list can be mended by hand.
            match deliveries.remove(id) {
                Ok(()) => {
                    tracing::info!(dataset = %request.dataset, delivery = id, "a held delivery is settled")
                }
                Err(error) => {
                    tracing::warn!(%error, delivery = id, "a held delivery is out of date and cannot be removed")
                }
            }
        }
    };
    match importer.import_unless_held(request, progress, &settle)? {
        Outcome::Imported(report) => Ok(report),
        Outcome::Held { reason, would } => {
            let held = deliveries.hold(request, &reason, &would)?;
            Ok(ImportReport::held(&would, held.id))
        }
    }
}
