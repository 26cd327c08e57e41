"""The closed tables of query, update and expression operators: MongoDB 8.x and Atlas, by name.

Operators cannot reach another namespace, so an unknown one is no access; it is refused all the same, because which
fields it looks at is not known (law 2). Source: MongoDB manual 8.x, "Query Predicates", "Update Operators" and
"Expression Operators".
"""

from collections.abc import Iterable
from typing import Final


def first_operator(keys: Iterable[str]) -> str:
    """Return the first key of an object that names an operator, or nothing."""
    for key in keys:
        if key.startswith("$"):
            return key
    return ""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


QUERY_LOGICAL: Final = frozenset({"$and", "$or", "$nor"})
"""Clauses of a filter that hold a list of filters."""

QUERY_HARMLESS: Final = frozenset({"$comment", "$sampleRate", "$alwaysTrue", "$alwaysFalse"})
"""Clauses of a filter that look at no field."""

QUERY_WHOLE: Final = frozenset({"$where", "$text", "$jsonSchema"})
"""Clauses of a filter that can look at any field: JavaScript, all text-indexed fields, a whole schema."""

QUERY_FIELD: Final = _names(
    """$eq $ne $gt $gte $lt $lte $in $nin $exists $type $mod $regex $options $size $all $elemMatch $not $bitsAllClear
    $bitsAllSet $bitsAnyClear $bitsAnySet $geoWithin $geoIntersects $within $near $nearSphere $maxDistance $minDistance
    $geometry $uniqueDocs $comment"""
)
"""Conditions on one field."""

QUERY_COMPARISON: Final = _names("$eq $ne $gt $gte $lt $lte $in $nin")
"""Conditions that compare the field with data."""

UPDATE: Final = _names(
    """$set $unset $inc $mul $min $max $rename $setOnInsert $currentDate $push $pull $pullAll $addToSet $pop
    $bit"""
)
"""Operators of an update document. The pipeline form is an array, which the tool's schema refuses."""

UPDATE_STORED: Final = _names("$set $setOnInsert $min $max $inc $mul $push $pullAll $addToSet")
"""Update operators whose values are data."""

UPDATE_MODIFIED: Final = _names("$push $addToSet")
UPDATE_MODIFIERS: Final = _names("$each $position $slice $sort")
"""Keys beside the data of an update operator that takes several values."""

EXPRESSION: Final = _names(
    """$abs $accumulator $acos $acosh $add $addToSet $allElementsTrue $and $anyElementTrue $arrayElemAt $arrayToObject
    $asin $asinh $atan $atan2 $atanh $avg $binarySize $bitAnd $bitNot $bitOr $bitXor $bitsAllClear $bottom $bottomN
    $bsonSize $ceil $cmp $concat $concatArrays $cond $const $convert $cos $cosh $count $covariancePop $covarianceSamp
    $createObjectId $dateAdd $dateDiff $dateFromParts $dateFromString $dateSubtract $dateToParts $dateToString
    $dateTrunc $dayOfMonth $dayOfWeek $dayOfYear $degreesToRadians $denseRank $derivative $deserializeEJSON $divide
    $documentNumber $encStrContains $encStrEndsWith $encStrNormalizedEq $encStrStartsWith $eq $exp $expMovingAvg
    $filter $first $firstN $floor $function $getField $gt $gte $hash $hexHash $hour $ifNull $in $indexOfArray
    $indexOfBytes $indexOfCP $integral $isArray $isNumber $isoDayOfWeek $isoWeek $isoWeekYear $last $lastN $let
    $linearFill $literal $ln $locf $log $log10 $lt $lte $ltrim $map $max $maxN $median $mergeObjects $meta $millisecond
    $min $minMaxScaler $minN $minute $mod $month $multiply $ne $not $objectToArray $or $percentile $pow $push
    $radiansToDegrees $rand $range $rank $reduce $regexFind $regexFindAll $regexMatch $replaceAll $replaceOne
    $reverseArray $round $rtrim $second $serializeEJSON $setDifference $setEquals $setField $setIntersection
    $setIsSubset $setUnion $shift $sigmoid $similarityCosine $similarityDotProduct $similarityEuclidean $sin $sinh
    $size $slice $sortArray $split $sqrt $stdDevPop $stdDevSamp $strLenBytes $strLenCP $strcasecmp $substr $substrBytes
    $substrCP $subtract $subtype $sum $switch $tan $tanh $toArray $toBool $toDate $toDecimal $toDouble
    $toHashedIndexKey $toInt $toLong $toLower $toObject $toObjectId $toString $toUUID $toUpper $top $topN $trim $trunc
    $tsIncrement $tsSecond $type $unsetField $week $year $zip"""
)
"""Expression operators, accumulators and window functions. One table: which of them may stand where is the server's
concern; which fields they look at is the same everywhere."""

SCALAR: Final = _names(
    """$abs $acos $acosh $add $allElementsTrue $and $anyElementTrue $asin $asinh $atan $atan2 $atanh $avg $binarySize
    $bitAnd $bitNot $bitOr $bitXor $bitsAllClear $bsonSize $ceil $cmp $cos $cosh $covariancePop $covarianceSamp
    $createObjectId $dateAdd $dateDiff $dateFromParts $dateFromString $dateSubtract $dateToParts $dateTrunc $dayOfMonth
    $dayOfWeek $dayOfYear $degreesToRadians $denseRank $derivative $divide $documentNumber $encStrContains
    $encStrEndsWith $encStrNormalizedEq $encStrStartsWith $eq $exp $expMovingAvg $floor $gt $gte $hash $hexHash $hour
    $in $indexOfArray $indexOfBytes $indexOfCP $integral $isArray $isNumber $isoDayOfWeek $isoWeek $isoWeekYear $ln $log
    $log10 $lt $lte $millisecond $minMaxScaler $minute $mod $month $multiply $ne $not $or $pow $radiansToDegrees $rand
    $rank $regexMatch $round $second $setEquals $setIsSubset $sigmoid $similarityCosine $similarityDotProduct
    $similarityEuclidean $sin $sinh $size $sqrt $stdDevPop $stdDevSamp $strLenBytes $strLenCP $strcasecmp $subtract
    $subtype $sum $tan $tanh $toBool $toDate $toDecimal $toDouble $toHashedIndexKey $toInt $toLong $toObjectId $toUUID
    $trunc $tsIncrement $tsSecond $type $week $year"""
)
"""Operators whose value is a number, a date, a boolean or the like: of one size for every operand."""

FIELDLESS_META: Final = frozenset({"textScore", "searchScore", "vectorSearchScore", "score", "randVal", "recordId"})
"""What ``$meta`` may name without giving back parts of a document (``searchHighlights`` and ``indexKey`` do)."""
