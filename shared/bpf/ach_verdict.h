/* What a function of the packet path returns: a verdict (>= 0), or the negative of a drop reason.
 */
#ifndef ACH_VERDICT_H
#define ACH_VERDICT_H

/* Verdicts are also what TCX and clsact take, but for NOT_OURS: their "go on with the next program"
 * is negative. A redirect helper's result is a verdict as it stands. */
enum ach_verdict {
    ACH_NOT_OURS = 0, /* for the programs after this one and then the kernel */
    ACH_CONSUMED = 2, /* dealt with: ends here, and is no drop to be counted */
};

#define ACH_TC_NEXT (-1)
#define ACH_TC_DROP 2

#endif
