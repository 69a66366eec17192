#include "tests/cache/contract/properties.h"

namespace millrace::cache {

const std::vector<Property>& RangeContract() {
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
      {"ARestoredSequenceGoesOn", ARestoredSequenceGoesOn},
  };
  return *contract;
}

const std::vector<Property>& ScoredContract() {
  static const auto* contract = new std::vector<Property>{
      {"RulesHoldUntilTheNextCut", RulesHoldUntilTheNextCut},
      {"TheTextGivesTheSamePolicy", TheTextGivesTheSamePolicy},
      {"CutsKeepTheBound", CutsKeepTheBound},
      {"SurvivorsAreRepeatable", SurvivorsAreRepeatable},
      {"SurvivorsFillTheBudget", SurvivorsFillTheBudget},
      {"ProtectedAndNewestSurvive", ProtectedAndNewestSurvive},
      {"TheOlderOfEqualsGoes", TheOlderOfEqualsGoes},
      {"SurvivorsFollowTheSums", SurvivorsFollowTheSums},
      {"RowsCountAlikeInAnyChunk", RowsCountAlikeInAnyChunk},
      {"PlansEvictNothing", PlansEvictNothing},
      {"HeadsHoldWhatTheyShould", HeadsHoldWhatTheyShould},
      {"KeysAreAtBoundedDistances", KeysAreAtBoundedDistances},
      {"HeldTokensAreBounded", HeldTokensAreBounded},
      {"ChunksOfTheTextDoNotMatter", ChunksOfTheTextDoNotMatter},
      {"CutTextLeavesNoTrace", CutTextLeavesNoTrace},
      {"AClearedTextLeavesNoTrace", AClearedTextLeavesNoTrace},
      {"WhatNoHeadHoldsIsAnnounced", WhatNoHeadHoldsIsAnnounced},
      {"ARestoredTextGoesOn", ARestoredTextGoesOn},
  };
  return *contract;
}

}  // namespace millrace::cache
