// What every cache policy promises, each promise as a function that looks for
// a case that breaks it.
//
//   for (const Property& property : ContractOf(*policy)) {
//     EXPECT_EQ(property.violation(policy, seed), "") << property.name;
//   }
//
// A policy that chooses by attention makes other promises than one that names
// ranges of the text: its rules speak of positions within the cache.
//
// A case is random and fixed by its seed. Nothing here knows any policy: all
// that is asked of one is CachePolicy. Of the code under contract the checks
// use no arithmetic on ranges: they go through the positions one by one.
#ifndef MILLRACE_TESTS_CACHE_CONTRACT_PROPERTIES_H_
#define MILLRACE_TESTS_CACHE_CONTRACT_PROPERTIES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cache/cache_policy.h"

namespace millrace::cache {

using PolicyPtr = std::shared_ptr<const CachePolicy>;

// The first violation that the case of `seed` meets, with its numbers; empty
// if the promise holds.
using Violation = std::string (*)(const PolicyPtr& policy, uint32_t seed);

struct Property {
  const char* name;  // a fact
  Violation violation;
};

const std::vector<Property>& RangeContract();
const std::vector<Property>& ScoredContract();  // of a policy with scoring()

inline const std::vector<Property>& ContractOf(const CachePolicy& policy) {
  return policy.scoring() == nullptr ? RangeContract() : ScoredContract();
}

// Of the rules (visibility_properties.cc).
std::string RulesAreInOrder(const PolicyPtr& policy, uint32_t seed);
std::string RulesHoldUntilTheNextCut(const PolicyPtr& policy, uint32_t seed);
std::string VisibilityIsMonotone(const PolicyPtr& policy, uint32_t seed);
std::string DistancesAreBounded(const PolicyPtr& policy, uint32_t seed);
std::string TheLedgerIsComplete(const PolicyPtr& policy, uint32_t seed);
std::string TheTextGivesTheSamePolicy(const PolicyPtr& policy, uint32_t seed);

// Of Plan alone, applied to a list of positions (plan_properties.cc).
std::string ProtectedTokensStay(const PolicyPtr& policy, uint32_t seed);
std::string NothingSeenIsEvicted(const PolicyPtr& policy, uint32_t seed);
std::string NothingUnseenIsKept(const PolicyPtr& policy, uint32_t seed);
std::string PlansAreRepeatable(const PolicyPtr& policy, uint32_t seed);
std::string PlansAreEmptyOnceApplied(const PolicyPtr& policy, uint32_t seed);
std::string ResidentTokensAreBounded(const PolicyPtr& policy, uint32_t seed);

// Of policy and cache manager together (manager_properties.cc).
std::string RowsReadWhatWasWritten(const PolicyPtr& policy, uint32_t seed);
std::string ChunksDoNotMatter(const PolicyPtr& policy, uint32_t seed);
std::string CutsAreExactOrRefused(const PolicyPtr& policy, uint32_t seed);
std::string TheReservationIsEnough(const PolicyPtr& policy, uint32_t seed);

// Of a choice by attention alone (scoring_properties.cc).
std::string CutsKeepTheBound(const PolicyPtr& policy, uint32_t seed);
std::string SurvivorsAreRepeatable(const PolicyPtr& policy, uint32_t seed);
std::string SurvivorsFillTheBudget(const PolicyPtr& policy, uint32_t seed);
std::string ProtectedAndNewestSurvive(const PolicyPtr& policy, uint32_t seed);
std::string TheOlderOfEqualsGoes(const PolicyPtr& policy, uint32_t seed);
std::string SurvivorsFollowTheSums(const PolicyPtr& policy, uint32_t seed);
std::string RowsCountAlikeInAnyChunk(const PolicyPtr& policy, uint32_t seed);
std::string PlansEvictNothing(const PolicyPtr& policy, uint32_t seed);

// Of it and the cache manager together (scored_properties.cc).
std::string HeadsHoldWhatTheyShould(const PolicyPtr& policy, uint32_t seed);
std::string KeysAreAtBoundedDistances(const PolicyPtr& policy, uint32_t seed);
std::string HeldTokensAreBounded(const PolicyPtr& policy, uint32_t seed);
std::string ChunksOfTheTextDoNotMatter(const PolicyPtr& policy, uint32_t seed);
std::string CutTextLeavesNoTrace(const PolicyPtr& policy, uint32_t seed);
std::string AClearedTextLeavesNoTrace(const PolicyPtr& policy, uint32_t seed);
std::string WhatNoHeadHoldsIsAnnounced(const PolicyPtr& policy, uint32_t seed);

// Of a sequence that is put away and goes on elsewhere
// (restore_properties.cc).
std::string ARestoredSequenceGoesOn(const PolicyPtr& policy, uint32_t seed);
std::string ARestoredTextGoesOn(const PolicyPtr& policy, uint32_t seed);

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_CONTRACT_PROPERTIES_H_
