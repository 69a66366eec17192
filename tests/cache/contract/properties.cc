#include "tests/cache/contract/properties.h"

namespace millrace::cache {

const std::vector<Property>& PolicyContract() {
  static const auto* contract = new std::vector<Property>{
      {"RulesAreInOrder", RulesAreInOrder},
      {"RulesHoldUntilTheNextCut", RulesHoldUntilTheNextCut},
      {"VisibilityIsMonotone", VisibilityIsMonotone},
      {"DistancesAreBounded", DistancesAreBounded},
      {"TheLedgerIsComplete", TheLedgerIsComplete},
      {"TheTextGivesTheSamePolicy", TheTextGivesTheSamePolicy},
      {"ProtectedTokensStay", ProtectedTokensStay},
      {"NothingSeenIsEvicted", NothingSeenIsEvicted},
      {"NothingUnseenIsKept", NothingUnseenIsKept},
      {"PlansAreRepeatable", PlansAreRepeatable},
      {"PlansAreEmptyOnceApplied", PlansAreEmptyOnceApplied},
      {"ResidentTokensAreBounded", ResidentTokensAreBounded},
      {"RowsReadWhatWasWritten", RowsReadWhatWasWritten},
      {"ChunksDoNotMatter", ChunksDoNotMatter},
      {"CutsAreExactOrRefused", CutsAreExactOrRefused},
      {"TheReservationIsEnough", TheReservationIsEnough},
  };
  return *contract;
}

}  // namespace millrace::cache
