//! Imports a delivery, or keeps it until a person decides.

use super::{
    held::Deliveries,
    hold::HeldNote,
    import::Importer,
    report::ImportReport,
    words::{ImportError, ImportRequest, Outcome, Progress},
};

/// Imports a file, or keeps it until somebody decides; the report then says so in
/// `held`, and nothing was changed. Blocks.
///
/// A full file that goes in makes held full ones of its dataset, that were there
/// before it was read, untrue: they are forgotten, the approved one among them.
pub fn import_or_hold(
    importer: &Importer,
    deliveries: &Deliveries,
    request: &ImportRequest,
    progress: &dyn Fn(Progress),
) -> Result<ImportReport, ImportError> {
    let waiting = if request.full { deliveries.waiting(&request.dataset)? } else { Vec::new() };
    let settle = |newer: &str| {
        for id in &waiting {
            // The import is done and durable; the list can be mended by hand.
            match deliveries.settle(id, newer) {
                Ok(()) => {
                    tracing::info!(dataset = %request.dataset, delivery = id, "a held delivery is settled")
                }
                Err(error) => {
                    tracing::warn!(%error, delivery = id, "a held delivery is out of date and cannot be removed")
                }
            }
        }
    };
    match importer.import_unless_held(request, Some(deliveries), progress, &settle)? {
        Outcome::Imported(report) => Ok(report),
        Outcome::Held { id, holds, would } => {
            let note = HeldNote::new(&id, &holds);
            deliveries.hold(request, id, &holds, &would, importer.room())?;
            Ok(ImportReport::held(&would, note))
        }
    }
}
