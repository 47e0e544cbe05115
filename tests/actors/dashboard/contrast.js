// The contrast of every text that is shown, and of the ring around what has focus, with the least that WCAG 2.2 allows:
// https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio and https://www.w3.org/TR/WCAG22/#dfn-relative-luminance.
(() => {
    const parts = (text) => { const found = text.match(/[\d.]+/g).map(Number); return [...found.slice(0, 3), found.length > 3 ? found[3] : 1]; };
    const over = (above, below) => [0, 1, 2].map((i) => above[i] * above[3] + below[i] * (1 - above[3])).concat(1);
    const light = (color) => { const [r, g, b] = color.slice(0, 3).map((one) => { one /= 255; return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ratio = (one, other) => { const [a, b] = [light(one), light(other)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); };
    const behind = (element) => {
        const layers = [];
        for (let one = element; one; one = one.parentElement) { const color = parts(getComputedStyle(one).backgroundColor); layers.push(color); if (color[3] === 1) break; }
        return layers.reverse().reduce((below, above) => over(above, below), [255, 255, 255, 1]);
    };
    const found = [];
    const check = (element, text, style, color) => {
        const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        const background = behind(element);
        found.push({ text: text.slice(0, 40), ratio: ratio(over(color, background), background), least: isLarge ? 3 : 4.5 });
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
        if (!text || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
        const style = getComputedStyle(element);
        check(element, text, style, parts(element instanceof SVGElement ? style.fill : style.color));
    }
    for (const one of document.querySelectorAll('input')) {
        if (!one.checkVisibility()) continue;
        const style = getComputedStyle(one, '::placeholder');
        check(one, one.placeholder, style, parts(style.color));
    }
    for (const one of document.querySelectorAll('button, input')) {
        if (!one.checkVisibility()) continue;
        const probe = getComputedStyle(document.documentElement).getPropertyValue('--accent').trim();
        one.style.setProperty('outline-color', probe);
        const ring = parts(getComputedStyle(one).outlineColor);
        one.style.removeProperty('outline-color');
        found.push({ text: 'the focus of ' + one.textContent, ratio: ratio(ring, behind(one.parentElement)), least: 3 });
    }
    return found;
})()
